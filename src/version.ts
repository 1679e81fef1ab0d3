// What this build is. The two names are put in by scripts/build.ts; from source there is nothing to tell.

declare const PGDOG_VERSION: string | undefined;
declare const PGDOG_GIT_HASH: string | undefined;

/** `PgDog v0.1.0 [1a2b3c4d, Bun 1.4.5]` */
export function versionLine(): string {
	const version = typeof PGDOG_VERSION === "string" ? PGDOG_VERSION : "0.0.0";
	const hash = typeof PGDOG_GIT_HASH === "string" ? PGDOG_GIT_HASH : "source";
	return `PgDog v${version} [${hash}, Bun ${Bun.version}]`;
}
