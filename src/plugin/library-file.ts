// Is this file a shared library for this machine? Asked before the dynamic loader sees it: a library that was cut short kills
// the process (SIGBUS), and one for another processor is reported as "No such file or directory".

import { closeSync, fstatSync, openSync, readSync } from "node:fs";

const ELF_MACHINE: Readonly<Record<string, number>> = { x64: 62, arm64: 183 };
const MACHINE_NAME: Readonly<Record<number, string>> = {
	3: "32-bit x86",
	40: "32-bit ARM",
	62: "x86-64",
	183: "aarch64",
	243: "RISC-V",
};
const MACH_CPU: Readonly<Record<string, number>> = { x64: 0x01000007, arm64: 0x0100000c };

const ELF_HEADER_SIZE = 64;
const PROGRAM_HEADER_SIZE = 56;
const TYPE_SHARED = 3;
const SEGMENT_LOAD = 1;

/** Why `file` cannot be loaded, in words that follow "because"; null when it may be tried. */
export function whyNotALibrary(
	file: string,
	platform: string = process.platform,
	arch: string = process.arch,
): string | null {
	let descriptor: number;
	try {
		descriptor = openSync(file, "r");
	} catch (error) {
		return `it cannot be read (${(error as NodeJS.ErrnoException).code ?? String(error)})`;
	}
	try {
		const stat = fstatSync(descriptor);
		if (!stat.isFile()) return "it is not a file";
		const read = (length: number, position: number): DataView | null => {
			if (!(position >= 0 && length >= 0 && position + length <= stat.size)) return null;
			const bytes = new Uint8Array(length);
			if (readSync(descriptor, bytes, 0, length, position) !== length) return null;
			return new DataView(bytes.buffer);
		};
		return platform === "darwin" ? whyNotMachO(read, arch) : whyNotElf(read, stat.size, arch);
	} catch (error) {
		return `it cannot be read (${(error as NodeJS.ErrnoException).code ?? String(error)})`;
	} finally {
		closeSync(descriptor);
	}
}

type Read = (length: number, position: number) => DataView | null;

/** System V ABI, "Object Files": ELF header, program headers. */
function whyNotElf(read: Read, size: number, arch: string): string | null {
	const header = read(ELF_HEADER_SIZE, 0);
	if (header === null || header.getUint32(0) !== 0x7f454c46) return "it is not a shared library (no ELF header)";
	if (header.getUint8(4) !== 2) return "it is a 32-bit library, expected a 64-bit one";
	if (header.getUint8(5) !== 1) return "it is a big-endian library, expected a little-endian one";
	const machine = header.getUint16(18, true);
	const expected = ELF_MACHINE[arch];
	if (expected !== undefined && machine !== expected) {
		const name = (number: number) => MACHINE_NAME[number] ?? `machine ${number}`;
		return `it is a library for ${name(machine)}, expected ${name(expected)}`;
	}
	const type = header.getUint16(16, true);
	if (type !== TYPE_SHARED) return `it is not a shared library (ELF type ${type}, expected ${TYPE_SHARED})`;

	const entrySize = header.getUint16(54, true);
	const entries = header.getUint16(56, true);
	if (entrySize < PROGRAM_HEADER_SIZE || entries === 0) return "its ELF header is damaged";
	const table = read(entrySize * entries, Number(header.getBigUint64(32, true)));
	if (table === null) return `it is cut short (${size} bytes, its program headers lie beyond)`;
	let loadable = false;
	for (let i = 0; i < entries; i++) {
		const at = i * entrySize;
		const end = Number(table.getBigUint64(at + 8, true)) + Number(table.getBigUint64(at + 32, true));
		if (table.getUint32(at, true) !== SEGMENT_LOAD) continue;
		loadable = true;
		if (end > size) return `it is cut short (${size} bytes, expected at least ${end})`;
	}
	if (!loadable) return "it has nothing to load";
	const sections = Number(header.getBigUint64(40, true)) + header.getUint16(58, true) * header.getUint16(60, true);
	if (sections > size) return `it is cut short (${size} bytes, expected ${sections})`;
	return null;
}

/** Only the header: fat files are left to the loader. On paper: never run on a Mac. */
function whyNotMachO(read: Read, arch: string): string | null {
	const header = read(8, 0);
	const magic = header?.getUint32(0);
	if (header === null || (magic !== 0xcffaedfe && magic !== 0xcafebabe && magic !== 0xcafebabf)) {
		return "it is not a shared library (no Mach-O header)";
	}
	const expected = MACH_CPU[arch];
	if (magic === 0xcffaedfe && expected !== undefined && header.getUint32(4, true) !== expected) {
		return `it is a library for another processor, expected ${arch}`;
	}
	return null;
}
