// From the name in `[[plugins]]` to a file, the way the dynamic loader would look for it; a name may lack `lib` and the suffix.
// Called by `loader.ts`, which logs what was taken. Knows nothing of what the file holds.

import { existsSync, readdirSync, readFileSync, statSync } from "node:fs";
import { basename, dirname, isAbsolute, join, resolve } from "node:path";

export interface Surroundings {
	readonly cwd: string;
	readonly env: Readonly<Record<string, string | undefined>>;
	readonly platform: string;
	/** The system's library folders, in the loader's order. */
	readonly systemFolders: readonly string[];
}

export function surroundings(): Surroundings {
	return {
		cwd: process.cwd(),
		env: process.env,
		platform: process.platform,
		systemFolders: systemFolders(process.platform),
	};
}

export interface Resolved {
	/** Absolute path; null when nothing was found. */
	readonly file: string | null;
	/** What was tried, for the log. */
	readonly tried: readonly string[];
}

/** Spellings of a library's file name, the likeliest first. */
function spellings(name: string, suffix: string): string[] {
	if (/\.(so|dylib)(\.\d+)*$/.test(name)) return [name];
	const prefixed = name.startsWith("lib")
		? [`${name}${suffix}`, `lib${name}${suffix}`]
		: [`lib${name}${suffix}`, `${name}${suffix}`];
	return [...prefixed, name];
}

function isFile(path: string): boolean {
	try {
		return statSync(path).isFile();
	} catch {
		return false;
	}
}

/**
 * A name with a slash is a path, relative ones from the working directory. A bare name is looked for in `LD_LIBRARY_PATH`
 * (`DYLD_LIBRARY_PATH` on a Mac), then in the system's folders; last, if it has a suffix, in the working directory, because the
 * documentation of the plugin crate promises that for `name = "libmy_plugin.so"`.
 */
export function resolveLibrary(name: string, { cwd, env, platform, systemFolders }: Surroundings): Resolved {
	const suffix = platform === "darwin" ? ".dylib" : ".so";
	const names = spellings(basename(name), suffix);
	let folders: string[];
	if (name.includes("/")) {
		const folder = dirname(name);
		folders = [isAbsolute(folder) ? folder : resolve(cwd, folder)];
		// A path that exists as spelled is meant, whatever its suffix.
		names.unshift(basename(name));
	} else {
		const variable = platform === "darwin" ? env.DYLD_LIBRARY_PATH : env.LD_LIBRARY_PATH;
		const own = variable ? variable.split(/[:;]/) : [];
		// The loader takes an empty entry for the working directory.
		folders = [...own.map((folder) => resolve(cwd, folder)), ...systemFolders];
		if (names.length === 1) folders.push(cwd);
	}
	const tried = new Set<string>();
	for (const folder of folders) {
		for (const spelling of names) {
			const path = join(folder, spelling);
			if (tried.has(path)) continue;
			tried.add(path);
			if (isFile(path)) return { file: path, tried: [...tried] };
		}
	}
	return { file: null, tried: [...tried] };
}

/** ld.so(8): the folders of /etc/ld.so.conf, then the built-in ones. dyld(1) on a Mac. */
export function systemFolders(platform: string): string[] {
	if (platform === "darwin") return ["/usr/local/lib", "/opt/homebrew/lib", "/usr/lib"];
	const folders = new Set<string>();
	readLoaderConfiguration("/etc/ld.so.conf", folders, 0);
	for (const folder of ["/lib64", "/usr/lib64", "/lib", "/usr/lib", "/usr/local/lib"]) folders.add(folder);
	return [...folders].filter((folder) => existsSync(folder));
}

const DEEPEST_INCLUDE = 8;

function readLoaderConfiguration(file: string, folders: Set<string>, depth: number): void {
	let text: string;
	try {
		text = readFileSync(file, "utf8");
	} catch {
		return;
	}
	for (const line of text.split("\n")) {
		const words = line
			.replace(/#.*/, "")
			.trim()
			.split(/[\s,:]+/);
		if (words[0] === "include" && depth < DEEPEST_INCLUDE) {
			for (const pattern of words.slice(1)) {
				for (const included of matching(resolve(dirname(file), pattern)))
					readLoaderConfiguration(included, folders, depth + 1);
			}
		} else if (words[0]?.startsWith("/")) {
			for (const folder of words) if (folder.startsWith("/")) folders.add(folder);
		}
	}
}

/** Files that match a pattern whose last part may hold `*`, as `include` lines do. */
function matching(pattern: string): string[] {
	const folder = dirname(pattern);
	const parts = basename(pattern).split("*");
	if (parts.length === 1) return [pattern];
	const expression = new RegExp(`^${parts.map((part) => part.replace(/[.+?^${}()|[\]\\]/g, "\\$&")).join(".*")}$`);
	try {
		return readdirSync(folder)
			.filter((name) => expression.test(name))
			.sort()
			.map((name) => join(folder, name));
	} catch {
		return [];
	}
}
