// Version, git hash and compilers of this build: scripts/build.ts puts in the constants; from source they are undefined.

declare const PGDOG_VERSION: string | undefined;
declare const PGDOG_GIT_HASH: string | undefined;
/** The plugin bridge in this executable: `rustc --version` and the pg_query crate's version; empty without a bridge. */
declare const PGDOG_RUSTC: string | undefined;
declare const PGDOG_PG_QUERY: string | undefined;

/**
 * `PgDog v1a2b3c4d (rustc 1.95.0 (59807616e 2026-04-14)), version 0.1.0, pg_query 6.1.1, Bun 1.4.5`: the answer to `--version`.
 * Up to the rustc it is PgDog's own line, by which authors of plugins find the compiler they need.
 */
export function versionLine(): string {
	const hash = typeof PGDOG_GIT_HASH === "string" ? PGDOG_GIT_HASH : "source";
	const version = typeof PGDOG_VERSION === "string" ? PGDOG_VERSION : "0.0.0";
	let rustc = "not compiled";
	if (typeof PGDOG_RUSTC === "string") rustc = PGDOG_RUSTC || "no rustc: built without Rust plugins";
	const pgQuery = typeof PGDOG_PG_QUERY === "string" && PGDOG_PG_QUERY !== "" ? `pg_query ${PGDOG_PG_QUERY}, ` : "";
	return `PgDog v${hash} (${rustc}), version ${version}, ${pgQuery}Bun ${Bun.version}`;
}
