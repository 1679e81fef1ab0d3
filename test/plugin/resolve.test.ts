// Which file a name in `[[plugins]]` stands for.

import { expect, test } from "bun:test";
import { mkdirSync, mkdtempSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { resolveLibrary, systemFolders } from "../../src/plugin/resolve.ts";

const root = mkdtempSync(join(tmpdir(), "pgdog-resolve-"));

function place(...files: string[]): void {
	for (const file of files) {
		mkdirSync(join(root, file, ".."), { recursive: true });
		writeFileSync(join(root, file), "");
	}
}

function find(name: string, libraryPath?: string, platform = "linux"): string | null {
	const variable = platform === "darwin" ? "DYLD_LIBRARY_PATH" : "LD_LIBRARY_PATH";
	const env = { [variable]: libraryPath };
	const { file } = resolveLibrary(name, {
		cwd: join(root, "cwd"),
		env,
		platform,
		systemFolders: [join(root, "system")],
	});
	return file === null ? null : file.slice(root.length + 1);
}

place("system/libone.so", "system/libtwo.so", "own/libtwo.so", "own/libthree.dylib", "own/four.so", "own/libfive.so.1");
place("cwd/libhere.so", "cwd/sub/libdeep.so", "cwd/sub/exact", "own/libseven.so");
mkdirSync(join(root, "own/libone.so"), { recursive: true });
const own = join(root, "own");

test("a bare name may lack lib and the suffix", () => {
	for (const name of ["one", "libone", "libone.so"]) expect(find(name)).toBe("system/libone.so");
	expect(find("three", own, "darwin")).toBe("own/libthree.dylib");
	expect(find("four", own)).toBe("own/four.so");
	expect(find("libfive.so.1", own)).toBe("own/libfive.so.1");
	expect(find("none", own)).toBeNull();
});

test("LD_LIBRARY_PATH comes before the system's folders, and folders of that name are passed over", () => {
	expect(find("two")).toBe("system/libtwo.so");
	expect(find("two", own)).toBe("own/libtwo.so");
	expect(find("two", `/nowhere:${own}`)).toBe("own/libtwo.so");
	expect(find("one", own)).toBe("system/libone.so");
});

test("only a name with a suffix is looked for in the working directory, and last", () => {
	expect(find("here")).toBeNull();
	expect(find("libhere.so")).toBe("cwd/libhere.so");
	place("system/libhere.so");
	expect(find("libhere.so")).toBe("system/libhere.so");
	// The loader takes an empty entry for the working directory.
	expect(find("here", "/nowhere:")).toBe("cwd/libhere.so");
});

test("a name with a slash is a path", () => {
	for (const name of ["./libhere.so", "../cwd/libhere.so", "./here", "./libhere"])
		expect(find(name)).toBe("cwd/libhere.so");
	expect(find("sub/deep")).toBe("cwd/sub/libdeep.so");
	expect(find("sub/exact")).toBe("cwd/sub/exact");
	expect(find(join(root, "own/libseven.so"))).toBe("own/libseven.so");
	expect(find(join(root, "own/seven"))).toBe("own/libseven.so");
	expect(find("./libone.so")).toBeNull();
});

test("the system has library folders", () => {
	expect(systemFolders(process.platform).length).toBeGreaterThan(0);
});
