// PostgreSQL's own tests for the server that Debian has installed here: their files from Debian's source package of that very
// version, the drivers that the server package brings, and the library of C functions that some tests load. No host is named:
// the machine's own package sources are asked. Called by scripts/regress.ts.

import { cpSync, existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

export interface Suite {
	/** As Debian counts: 15.18-0+deb12u1. */
	version: string;
	/** The folder with `initdb`, `postgres` and `psql`. */
	bin: string;
	/** The drivers. */
	regress: string;
	isolation: string;
	/** `src/test` of PostgreSQL's source. */
	tests: string;
	/** The folder with the libraries that tests load by name. */
	libraries: string;
	/** backend-pid.c, to be loaded before libpq. */
	backendPid: string;
}

const DEBIAN = "/usr/lib/postgresql";

/** @param cache a folder that is kept from run to run */
export function findSuite(cache: string): Suite {
	const major = (existsSync(DEBIAN) ? readdirSync(DEBIAN) : [])
		.sort((a, b) => Number(b) - Number(a))
		.find((name) => existsSync(join(DEBIAN, name, "lib/pgxs/src/test/isolation/pg_isolation_regress")));
	if (major === undefined || Bun.which("apt-get") === null)
		throw new Error("this needs PostgreSQL as Debian or Ubuntu package it (apt install postgresql), and apt-get");
	// biome-ignore lint/suspicious/noTemplateCurlyInString: dpkg-query fills it in.
	const version = command(["dpkg-query", "-W", "-f", "${Version}", `postgresql-${major}`]).trim();
	const folder = join(cache, version);
	const drivers = join(DEBIAN, major, "lib/pgxs/src/test");
	const suite = {
		version,
		bin: join(DEBIAN, major, "bin"),
		regress: join(drivers, "regress/pg_regress"),
		isolation: join(drivers, "isolation/pg_isolation_regress"),
		tests: join(folder, "src/test"),
		libraries: join(folder, "lib"),
		backendPid: join(folder, "lib/backend-pid.so"),
	};
	// The library is made last: where it is, all is.
	if (!existsSync(join(suite.libraries, "regress.so"))) {
		rmSync(folder, { recursive: true, force: true });
		mkdirSync(suite.libraries, { recursive: true });
		const place = mkdtempSync(join(tmpdir(), "pgdog-regress-"));
		try {
			downloadTests(place, folder, major, version);
			// Contrib's, which the tests of triggers load from where theirs are.
			for (const name of ["refint.so", "autoinc.so"]) {
				const file = join(DEBIAN, major, "lib", name);
				if (existsSync(file)) cpSync(file, join(suite.libraries, name));
			}
			const headers = findHeaders(place, major, version);
			const source = join(suite.tests, "regress/regress.c");
			const made = join(place, "regress.so");
			command(["cc", "-shared", "-fPIC", "-O1", "-w", `-I${headers}`, "-o", made, source]);
			command(["cc", "-shared", "-fPIC", "-o", suite.backendPid, join(import.meta.dir, "backend-pid.c")]);
			cpSync(made, join(suite.libraries, "regress.so"));
		} finally {
			rmSync(place, { recursive: true, force: true });
		}
	}
	return suite;
}

function downloadTests(place: string, folder: string, major: string, version: string): void {
	console.log(`fetching the source package of postgresql-${major} ${version}`);
	const options = sourceOptions(place);
	command(["apt-get", ...options, "update"]);
	command(["apt-get", ...options, "source", "--download-only", `postgresql-${major}=${version}`], place);
	const archive = readdirSync(place).find((name) => /\.orig\.tar\.\w+$/.test(name));
	if (archive === undefined) throw new Error("the source package brings no .orig.tar");
	const wanted = ["*/src/test/regress", "*/src/test/isolation"];
	command(["tar", "-xf", join(place, archive), "-C", folder, "--strip-components=1", "--wildcards", ...wanted]);
}

/** Has apt read the machine's package sources as sources of source packages, and nothing of it kept. */
function sourceOptions(place: string): string[] {
	const parts = join(place, "parts");
	for (const name of ["parts", "lists/partial", "cache/archives/partial"])
		mkdirSync(join(place, name), { recursive: true });
	const main = "/etc/apt/sources.list";
	const more = "/etc/apt/sources.list.d";
	const files = [main, ...(existsSync(more) ? readdirSync(more).map((name) => join(more, name)) : [])];
	for (const file of files.filter((name) => /\.(list|sources)$/.test(name) && existsSync(name))) {
		const text = readFileSync(file, "utf8");
		const asSources = file.endsWith(".list")
			? text.replace(/^deb(-src)?\s/gm, "deb-src ")
			: text.replace(/^Types:.*$/gm, "Types: deb-src");
		writeFileSync(join(parts, file.split("/").at(-1)!), asSources);
	}
	return [
		...[
			"Dir::Etc::SourceList=/dev/null",
			`Dir::Etc::SourceParts=${parts}`,
			`Dir::State::Lists=${join(place, "lists")}`,
		],
		// Folders of ours are closed to the user that apt downloads as.
		...[`Dir::Cache=${join(place, "cache")}`, "APT::Sandbox::User=root"],
	].flatMap((option) => ["-o", option]);
}

/** The server's headers: as installed, or out of the package that has them. */
function findHeaders(place: string, major: string, version: string): string {
	const path = `usr/include/postgresql/${major}/server`;
	if (existsSync(join("/", path, "postgres.h"))) return join("/", path);
	const name = `postgresql-server-dev-${major}`;
	command(["apt-get", "-o", "APT::Sandbox::User=root", "download", `${name}=${version}`], place);
	const file = readdirSync(place).find((each) => each.startsWith(name) && each.endsWith(".deb"));
	if (file === undefined) throw new Error(`${name} was not downloaded`);
	command(["dpkg-deb", "-x", join(place, file), join(place, "dev")]);
	return join(place, "dev", path);
}

function command(words: string[], cwd?: string): string {
	const { exitCode, stdout, stderr } = Bun.spawnSync(words, { ...(cwd === undefined ? {} : { cwd }), stderr: "pipe" });
	if (exitCode !== 0)
		throw new Error(`${words.join(" ")} exited ${exitCode}\n${stderr.toString()}${stdout.toString()}`);
	return stdout.toString();
}
