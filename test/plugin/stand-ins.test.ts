// plugins/stand-ins/: the bindings that are kept in the place of bindgen fit the headers, no other header is taken for them, and
// nothing in the tree asks for libclang.

import { beforeAll, expect, test } from "bun:test";
import { copyFileSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { type Declarations, layoutPrograms, readBindings, readHeader } from "./c-header.ts";
import { describeWithCargo, FIXTURES, folder, run } from "./support.ts";

const PLUGINS = join(import.meta.dir, "../../plugins");
const KEPT = join(PLUGINS, "stand-ins/bindgen-of-pg-query/src/bindings.rs");

/** Of every declaration of `wanted`: what `found` says else of it. */
function differences(wanted: Declarations, found: Declarations): string[] {
	const lines: string[] = [];
	for (const [what, text] of wanted) {
		if (found.get(what) !== text) lines.push(`${what}: ${text} <> ${found.get(what)}`);
	}
	return lines;
}

test("no lock file has a package that needs libclang, and bindgen comes from this tree", () => {
	const locks = [PLUGINS, ...["witness", "scribe", "other_plugin"].map((name) => join(FIXTURES, name))];
	for (const place of locks) {
		const packages = readFileSync(join(place, "Cargo.lock"), "utf8").split("[[package]]");
		const named = (name: string) => packages.filter((text) => text.includes(`\nname = "${name}"\n`));
		expect(named("clang-sys")).toEqual([]);
		expect(named("bindgen")).toHaveLength(2);
		// A package of a folder has no source.
		for (const text of named("bindgen")) expect(text).not.toContain("source =");
	}
});

describeWithCargo("the stand-ins for bindgen", () => {
	/** Folders of the crates as cargo has unpacked them. */
	const crates: Record<string, string> = {};

	beforeAll(() => {
		const said = run(["cargo", "metadata", "--locked", "--format-version", "1"], PLUGINS);
		const { packages } = JSON.parse(said) as { packages: { name: string; manifest_path: string }[] };
		for (const { name, manifest_path } of packages) crates[name] = dirname(manifest_path);
	});

	const headers = () => {
		const place = join(crates.pg_query!, "libpg_query");
		return ["postgres_deparse.h", "pg_query.h"].map((name) => join(place, name));
	};
	const declared = () => new Map(headers().flatMap((file) => [...readHeader(readFileSync(file, "utf8"))]));

	test("the kept bindings declare what the headers of pg_query declare, and nothing else", () => {
		const found = readBindings(readFileSync(KEPT, "utf8"));
		const wanted = declared();
		expect(wanted.size).toBeGreaterThan(60);
		expect(differences(wanted, found)).toEqual([]);
		expect(differences(found, wanted)).toEqual([]);
	});

	test("a mistake in them is noticed", () => {
		const kept = readFileSync(KEPT, "utf8");
		const mistakes: [string, string][] = [
			["pub lineno: c_int", "pub lineno: c_uint"],
			["    pub len: usize,\n    pub data: *mut c_char,", "    pub data: *mut c_char,\n    pub len: usize,"],
			["pub fingerprint: u64", "pub fingerprint: u32"],
			["input: *const c_char, parser_options: c_int)", "parser_options: c_int, input: *const c_char)"],
			["-> PgQueryScanResult", "-> PgQueryParseResult"],
			["PG_QUERY_PARSE_TYPE_NAME: PgQueryParseMode = 1", "PG_QUERY_PARSE_TYPE_NAME: PgQueryParseMode = 2"],
			['b"17.7\\0"', 'b"17.6\\0"'],
			["    pub fn pg_query_exit();\n", ""],
		];
		for (const [right, wrong] of mistakes) {
			expect(kept).toContain(right);
			expect(differences(declared(), readBindings(kept.replace(right, wrong)))).not.toEqual([]);
		}
	});

	const layouts = (header: string, bindings: string, wanted: Declarations) => {
		const place = folder();
		const { c, rust } = layoutPrograms(header, bindings, wanted);
		writeFileSync(join(place, "c.c"), c);
		writeFileSync(join(place, "rust.rs"), rust);
		run(["cc", "-o", "in-c", "c.c"], place);
		run(["rustc", "--edition", "2021", "-o", "in-rust", "rust.rs"], place);
		return [run([join(place, "in-c")], place), run([join(place, "in-rust")], place)];
	};

	test("C and Rust see every struct of pg_query at the same places in memory", () => {
		const [c, rust] = layouts(headers()[1]!, KEPT, declared());
		expect(c!.split("\n").length).toBeGreaterThan(60);
		expect(rust).toBe(c!);
	});

	test("so they do the structs of pgdog-plugin, with the bindings that it is published with", () => {
		const header = join(crates["pgdog-plugin"]!, "include/types.h");
		const bindings = join(crates["pgdog-plugin"]!, "src/bindings.rs");
		const wanted = readHeader(readFileSync(header, "utf8"));
		expect(wanted.size).toBe(6);
		expect(differences(wanted, readBindings(readFileSync(bindings, "utf8")))).toEqual([]);
		// PdStr is a tag, not a type, in C.
		const [c, rust] = layouts(header, bindings, new Map([...wanted].filter(([what]) => what !== "struct PdStr")));
		expect(rust).toBe(c!);
	});

	test("they refuse a header that differs by a byte", () => {
		const place = folder();
		const calls: Record<string, string> = {
			"bindgen-of-pg-query": ".header(header).generate()",
			"bindgen-of-pgdog-plugin":
				".header(header).generate_comments(true).parse_callbacks(Box::new(bindgen::CargoCallbacks::new())).generate()",
		};
		const sources: Record<string, string[]> = {
			"bindgen-of-pg-query": [...headers()].reverse(),
			"bindgen-of-pgdog-plugin": ["wrapper.h", "types.h"].map((name) => join(crates["pgdog-plugin"]!, "include", name)),
		};
		for (const [name, call] of Object.entries(calls)) {
			const main = `fn main() -> Result<(), Box<dyn std::error::Error>> {
				let header = std::env::args().nth(1).unwrap();
				let made = bindgen::Builder::default()${call}.map_err(|error| error.to_string())?;
				made.write_to_file("bindings.rs")?;
				Ok(())
			}`;
			writeFileSync(join(place, "main.rs"), main);
			const library = join(PLUGINS, "stand-ins", name, "src/lib.rs");
			run(
				[
					"rustc",
					"--edition",
					"2021",
					"--crate-type",
					"rlib",
					"--crate-name",
					"bindgen",
					"-o",
					"libbindgen.rlib",
					library,
				],
				place,
			);
			run(["rustc", "--edition", "2021", "-o", "ask", "--extern", "bindgen=libbindgen.rlib", "main.rs"], place);
			const [header, included] = sources[name]!.map((file) => join(place, file.split("/").at(-1)!));
			for (const [i, file] of sources[name]!.entries()) copyFileSync(file, [header!, included!][i]!);
			run([join(place, "ask"), header!], place);
			for (const changed of [header!, included!]) {
				const before = readFileSync(changed);
				writeFileSync(changed, Buffer.concat([before, Buffer.from("\n")]));
				expect(() => run([join(place, "ask"), header!], place)).toThrow(/is not of p[a-z_-]+ \d/);
				writeFileSync(changed, before);
			}
		}
		// The first one's; the second writes nothing.
		expect(readFileSync(join(place, "bindings.rs"), "utf8")).toBe(readFileSync(KEPT, "utf8"));
	});
});
