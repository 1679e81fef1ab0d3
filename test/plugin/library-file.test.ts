// The look at a file before the dynamic loader sees it. The libraries are forged here, field by field.

import { expect, test } from "bun:test";
import { mkdtempSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { whyNotALibrary } from "../../src/plugin/library-file.ts";

interface Elf {
	magic: number;
	class: number;
	order: number;
	type: number;
	machine: number;
	segmentEnd: number;
	sectionsAt: number;
	size: number;
}

const SOUND: Elf = {
	magic: 0x7f454c46,
	class: 2,
	order: 1,
	type: 3,
	machine: 62,
	segmentEnd: 4000,
	sectionsAt: 4000,
	size: 4128,
};
const folder = mkdtempSync(join(tmpdir(), "pgdog-elf-"));

/** An ELF header, one LOAD segment, two section headers of 64 bytes. */
function why(change: Partial<Elf>, arch = "x64"): string | null {
	const elf = { ...SOUND, ...change };
	const view = new DataView(new ArrayBuffer(8192));
	view.setUint32(0, elf.magic);
	view.setUint8(4, elf.class);
	view.setUint8(5, elf.order);
	view.setUint16(16, elf.type, true);
	view.setUint16(18, elf.machine, true);
	view.setBigUint64(32, 64n, true);
	view.setBigUint64(40, BigInt(elf.sectionsAt), true);
	view.setUint16(54, 56, true);
	view.setUint16(56, 1, true);
	view.setUint16(58, 64, true);
	view.setUint16(60, 2, true);
	view.setUint32(64, 1, true);
	view.setBigUint64(64 + 32, BigInt(elf.segmentEnd), true);
	const file = join(folder, "x.so");
	writeFileSync(file, new Uint8Array(view.buffer, 0, elf.size));
	return whyNotALibrary(file, "linux", arch);
}

test("a sound library may be tried", () => {
	expect(why({})).toBeNull();
	expect(why({ machine: 183 }, "arm64")).toBeNull();
});

test("each defect has words of its own", () => {
	expect(why({ magic: 0x23212f62 })).toBe("it is not a shared library (no ELF header)");
	expect(why({ class: 1 })).toBe("it is a 32-bit library, expected a 64-bit one");
	expect(why({ order: 2 })).toBe("it is a big-endian library, expected a little-endian one");
	expect(why({ machine: 183 })).toBe("it is a library for aarch64, expected x86-64");
	expect(why({ machine: 62 }, "arm64")).toBe("it is a library for x86-64, expected aarch64");
	expect(why({ machine: 999 })).toBe("it is a library for machine 999, expected x86-64");
	expect(why({ type: 2 })).toBe("it is not a shared library (ELF type 2, expected 3)");
	expect(why({ segmentEnd: 5000 })).toBe("it is cut short (4128 bytes, expected at least 5000)");
	expect(why({ size: 4100 })).toBe("it is cut short (4100 bytes, expected 4128)");
});

test("a library cut anywhere is refused, never thrown at", () => {
	for (let size = 0; size < SOUND.size; size += 7) expect(why({ size })).toBeString();
});

test("what is no file is refused", () => {
	expect(whyNotALibrary(folder)).toBe("it is not a file");
	expect(whyNotALibrary(join(folder, "nothing"))).toBe("it cannot be read (ENOENT)");
	expect(whyNotALibrary("/dev/zero")).toBe("it is not a file");
});
