// Reads the C headers that Rust bindings are kept for, and the bindings, into the same words, so that they can be compared. It
// understands what those headers use: structs, enums, pointers, prototypes, constants; anything else is an error.

/** Declarations by what they declare: "struct X", "fn x", "const X", "type X". The value is all of it, in Rust's words. */
export type Declarations = Map<string, string>;

const SCALARS: Record<string, string> = {
	char: "c_char",
	int: "c_int",
	"unsigned int": "c_uint",
	bool: "bool",
	size_t: "usize",
	uint8_t: "u8",
	uint64_t: "u64",
	int32_t: "i32",
	int64_t: "i64",
	void: "c_void",
};

/** A C declarator, "const char *input", as a name and Rust's type. */
function declarator(text: string): { name: string; type: string } {
	const match = /^(const )?(?:struct )?([\w ]+?)\s*(\**)\s*(\w+)$/.exec(text.trim().replace(/\s+/g, " "));
	if (match === null) throw new Error(`a declarator that is not understood: ${text}`);
	const [, constant, base, stars, name] = match;
	let type = SCALARS[base!] ?? base!;
	for (let i = 0; i < stars!.length; i++) type = `${constant && i === 0 ? "*const" : "*mut"} ${type}`;
	return { name: name!, type };
}

export function readHeader(text: string): Declarations {
	const found: Declarations = new Map();
	const code = text
		.replace(/\/\*[\s\S]*?\*\//g, " ")
		.replace(/\/\/.*$/gm, " ")
		.replace(/#ifdef __cplusplus[\s\S]*?#endif/g, " ");
	for (const [, name, value] of code.matchAll(/^#define (\w+) (.+)$/gm))
		found.set(`const ${name}`, constant(value!, found));
	let rest = code.replace(/^#.*$/gm, " ");
	const take = (pattern: RegExp, use: (match: RegExpMatchArray) => void) => {
		for (const match of rest.matchAll(pattern)) use(match);
		rest = rest.replace(pattern, " ");
	};
	take(/typedef struct( \w+)?\s*\{([^}]*)\}\s*(\w+);/g, ([, tag, body, alias]) => {
		// The tag is bindgen's name for it, the alias a second one.
		const name = tag?.trim() ?? alias!;
		const fields = body!.split(";").filter((field) => field.trim() !== "");
		const members = fields.map((field) => declarator(field)).map((field) => `${field.name}: ${field.type}`);
		found.set(`struct ${name}`, members.join(", "));
		if (alias !== name) found.set(`type ${alias}`, name);
	});
	take(/typedef enum\s*\{([^}]*)\}\s*(\w+);/g, ([, body, name]) => {
		found.set(`type ${name}`, "c_uint");
		let next = 0;
		for (const item of body!.split(",")) {
			const [label, value] = item.split("=").map((part) => part.trim());
			if (value !== undefined) next = Number(value);
			found.set(`const ${name}_${label}`, String(next++));
		}
	});
	take(/typedef struct (\w+) \*(\w+);/g, ([, name, alias]) => found.set(`type ${alias}`, `*mut ${name}`));
	take(/(?<![\w*] *)struct (\w+);/g, ([, name]) => found.set(`struct ${name}`, "opaque"));
	take(/(?:extern )?([\w *]+?)(\w+)\s*\(([^)]*)\);/g, ([, returned, name, list]) => {
		const { type } = declarator(`${returned} x`);
		const given = list!.trim() === "void" ? [] : list!.split(",").map((argument) => declarator(argument));
		found.set(
			`fn ${name}`,
			`(${given.map((one) => `${one.name}: ${one.type}`).join(", ")})${type === "c_void" ? "" : ` -> ${type}`}`,
		);
	});
	if (rest.trim() !== "") throw new Error(`declarations that are not understood: ${rest.trim()}`);
	return found;
}

function constant(value: string, earlier: Declarations): string {
	if (value.startsWith('"')) return `${value.slice(1, -1)}\\0`;
	const known = value.trim().replace(/[A-Z_]{2,}/g, (name) => earlier.get(`const ${name}`) ?? name);
	const shifted = /^\(\(1 << (\d+)\) - 1\)$/.exec(known);
	const number = shifted === null ? Number(known) : (1 << Number(shifted[1])) - 1;
	if (!Number.isInteger(number)) throw new Error(`a constant that is not understood: ${value}`);
	return String(number);
}

/** What bindgen, or somebody in its manner, has written. */
export function readBindings(text: string): Declarations {
	const found: Declarations = new Map();
	const code = text.replace(/^\s*#\[.*\]$/gm, " ").replace(/\/\/.*$/gm, " ");
	const words = (part: string) =>
		part
			.replace(/::std::os::raw::/g, "")
			.replace(/\bstr_:/g, "str:")
			.replace(/\s+/g, " ")
			.replace(/,\s*$/, "")
			.trim();
	for (const [, name, body] of code.matchAll(/pub struct (\w+) \{([^}]*)\}/g)) {
		const members = words(body!).replace(/pub /g, "");
		found.set(`struct ${name}`, members === "_unused: [u8; 0]" ? "opaque" : members);
	}
	for (const [, name, type] of code.matchAll(/pub type (\w+) = ([^;]+);/g)) found.set(`type ${name}`, words(type!));
	for (const [, name, value] of code.matchAll(/pub const (\w+): [^=]+ = ([^;]+);/g))
		found.set(`const ${name}`, words(value!).replace(/^b"(.*)"$/, "$1"));
	for (const [, name, list, returned] of code.matchAll(/pub fn (\w+)\(([^)]*)\)([^;]*);/g))
		found.set(`fn ${name}`, `(${words(list!)})${returned!.trim() === "" ? "" : ` ${words(returned!)}`}`);
	return found;
}

/** A program in C and one in Rust that print the same lines when both see the same structs in memory. */
export function layoutPrograms(header: string, bindings: string, declared: Declarations): { c: string; rust: string } {
	const c: string[] = [];
	const rust: string[] = [];
	for (const [what, members] of declared) {
		const struct = what.replace("struct ", "");
		if (struct === what || members === "opaque") continue;
		c.push(`\tprintf("${struct} %zu %zu\\n", sizeof(${struct}), _Alignof(${struct}));`);
		rust.push(`\tprintln!("${struct} {} {}", size_of::<${struct}>(), align_of::<${struct}>());`);
		for (const field of members.split(", ").map((member) => member.split(":")[0]!)) {
			const size = `sizeof(((${struct} *)0)->${field})`;
			c.push(`\tprintf("${struct}.${field} %zu %zu\\n", offsetof(${struct}, ${field}), ${size});`);
			const inRust = field === "str" ? "str_" : field;
			rust.push(
				`\tprintln!("${struct}.${field} {} {}", offset_of!(${struct}, ${inRust}), width(|it: &${struct}| &raw const it.${inRust}));`,
			);
		}
	}
	return {
		c: `#include <stddef.h>\n#include <stdio.h>\n#include "${header}"\nint main(void) {\n${c.join("\n")}\n}\n`,
		rust: `#![allow(warnings)]
use std::mem::{align_of, offset_of, size_of};
mod bindings { include!(${JSON.stringify(bindings)}); }
use bindings::*;
fn width<S, F>(_: impl Fn(&S) -> *const F) -> usize { size_of::<F>() }
fn main() {\n${rust.join("\n")}\n}\n`,
	};
}
