// PostgreSQL's own grammar, version 17: SQL text → syntax tree. The WebAssembly module of @supabase/pg-parser without its
// JavaScript, which is asynchronous, and whose 64 KiB of stack one query of 72 terms overflows for ever. `cache.ts` and
// `facts.ts` are its readers; it knows nothing of what a tree means. Costs nothing, no memory either, until the first parse.

import { readFileSync } from "node:fs";
import wasmFile from "../../node_modules/@supabase/pg-parser/wasm/17/pg-parser.wasm" with { type: "file" };
import { mayHaveComments, withoutComments } from "./comments.ts";
import { Backslash } from "./lexer.ts";
import { type Exports, imports } from "./wasm-imports.ts";

/** What the parser made of a text. */
export const enum Parsed {
	Tree,
	/** PostgreSQL's parser refuses it, and so will the server. */
	SyntaxError,
	/** Longer than the limit: not looked at. */
	TooLarge,
	/**
	 * Nested deeper than our stack; the server's limit is another, it may well run it. Where ours ends depends on what the
	 * engine has compiled so far: some 700 nested SELECTs in a new thread, 2,000 later.
	 */
	TooDeep,
	/** The parser failed in a way it never should. */
	Broken,
	/**
	 * The parser refuses it, but for comments that it is known to trip over: PostgreSQL may well run it. Or it was not asked,
	 * since what the text says depends on what only the server knows (`cache.ts`).
	 */
	Unclear,
}

/** A node as libpg_query writes it in JSON: fields by name; a node of no fixed type is `{ TypeName: { … } }`. */
export type Fields = { readonly [field: string]: Value };
export type Value = string | number | boolean | null | Fields | readonly Value[];

/** The node that a field holds; null: it holds none. */
export function node(value: Value | undefined): Fields | null {
	return value !== null && typeof value === "object" && !Array.isArray(value) ? (value as Fields) : null;
}

/** The list that a field holds; none is an empty one. */
export function listOf(value: Value | undefined): readonly Value[] {
	return Array.isArray(value) ? value : [];
}

export interface ParseTree {
	readonly outcome: Parsed.Tree;
	/** The statements of the string, each `{ SelectStmt: { … } }` or the like. Empty ones are left out. */
	readonly statements: readonly Fields[];
}

/** Why there is no tree. */
export interface SqlError {
	readonly outcome: Exclude<Parsed, Parsed.Tree>;
	readonly message: string;
	/** Where the syntax error is, in characters from 1; 0 when unknown. */
	readonly position: number;
}

export interface SqlParserOptions {
	/**
	 * Longest text that is parsed, in UTF-16 units. Other clients of the thread wait meanwhile: a list of constants takes a
	 * millisecond and half a megabyte of memory per KiB. Default 256 KiB.
	 */
	readonly maxLength?: number;
}

/** Stack of the parser, inside its memory. 5,000 terms of a sum take 4 MiB; the thread's own stack ends long before this. */
const STACK_BYTES = 16 * 2 ** 20;
/** Fills the stack's far end: once one word there has changed, the stack ran into the heap and nothing there can be believed. */
const CANARY = 0x5ca1ab1e;
const CANARY_WORDS = 64;
/** Memory of WebAssembly never shrinks: an instance that grew beyond is let go. A fresh one takes 40 MiB of address space. */
const KEEP_BYTES = 96 * 2 ** 20;

/** `PgQueryParseResult` and `PgQueryError` of pg_query.h, in bytes of a 32-bit machine. */
const enum Offset {
	Tree = 0,
	Error = 8,
	// biome-ignore lint/suspicious/noDuplicateEnumValues: the members of two structures.
	ErrorMessage = 0,
	ErrorFile = 8,
	ErrorPosition = 16,
}

interface Instance {
	readonly wasm: Exports;
	readonly stackEnd: number;
}

/** One per thread. */
export class SqlParser {
	/** Characters of a text that is parsed at most. */
	readonly maxLength: number;
	#module: WebAssembly.Module | null = null;
	#instance: Instance | null = null;
	/** A view of the instance's memory; made anew when that grows. */
	#heap: Buffer<ArrayBuffer> = Buffer.from(new ArrayBuffer(0));
	#instances = 0;

	constructor(options: SqlParserOptions = {}) {
		this.maxLength = options.maxLength ?? 256 * 1024;
	}

	/** Instances made so far: more than one after a failure that was not an SQL error. */
	get instances(): number {
		return this.#instances;
	}

	/** Bytes of the instance's memory; 0 before the first parse. */
	get heapBytes(): number {
		return this.#instance?.wasm.memory.buffer.byteLength ?? 0;
	}

	/** Compiles and instantiates (some 25 ms) so that the first query need not wait for it. */
	warm(): void {
		this.#instance ??= this.#instantiate();
	}

	/** Synchronous; reads the text as with `standard_conforming_strings = on`. Never throws, whatever the text. */
	parse(sql: string): ParseTree | SqlError {
		if (sql.length > this.maxLength) {
			return failure(Parsed.TooLarge, `the statement is longer than ${this.maxLength} characters`);
		}
		// The module would stop reading at a NUL.
		if (sql.includes("\0")) return failure(Parsed.SyntaxError, 'invalid byte sequence for encoding "UTF8": 0x00');
		if (!mayHaveComments(sql)) return this.#attempt(sql);
		// Comments go first, and not only when the parser refuses them: with them it also takes what PostgreSQL does not.
		const plain = withoutComments(sql, Backslash.Plain);
		if (plain !== null) return this.#attempt(plain);
		const result = this.#attempt(sql);
		if (result.outcome !== Parsed.SyntaxError) return result;
		return failure(Parsed.Unclear, result.message, result.position);
	}

	#attempt(sql: string): ParseTree | SqlError {
		let result: ParseTree | SqlError;
		try {
			this.#instance ??= this.#instantiate();
			result = this.#run(this.#instance, sql);
		} catch (error) {
			// "Maximum call stack size exceeded": WebAssembly recurses on the thread's stack.
			if (error instanceof RangeError) result = failure(Parsed.TooDeep, "the statement is nested too deeply");
			else result = failure(Parsed.Broken, error instanceof Error ? error.message : String(error));
		}
		const failed = result.outcome === Parsed.TooDeep || result.outcome === Parsed.Broken;
		// A parse that was cut short leaves garbage on both the module's stack and its heap.
		if (failed || this.heapBytes > KEEP_BYTES) this.#forget();
		return result;
	}

	#run({ wasm, stackEnd }: Instance, sql: string): ParseTree | SqlError {
		const room = sql.length * 3 + 1;
		const text = wasm.malloc(room) >>> 0;
		if (text === 0) return failure(Parsed.Broken, "out of memory");
		this.#look(wasm);
		const length = this.#heap.write(sql, text, room - 1, "utf8");
		this.#heap[text + length] = 0;
		const result = wasm.parse_sql(text) >>> 0;
		wasm.free(text);
		this.#look(wasm);
		if (!this.#intact(stackEnd)) return failure(Parsed.TooDeep, "the statement is nested too deeply");

		const error = this.#word(result + Offset.Error);
		if (error !== 0) {
			const message = this.#string(this.#word(error + Offset.ErrorMessage));
			const file = this.#string(this.#word(error + Offset.ErrorFile));
			const position = this.#word(error + Offset.ErrorPosition);
			wasm.free_parse_result(result);
			return failure(isGrammar(file) ? Parsed.SyntaxError : Parsed.Broken, message, position);
		}
		const json = this.#string(this.#word(result + Offset.Tree));
		wasm.free_parse_result(result);
		return { outcome: Parsed.Tree, statements: statements(JSON.parse(json)) };
	}

	#instantiate(): Instance {
		this.#module ??= new WebAssembly.Module(readFileSync(wasmFile));
		this.#instances++;
		const { exports } = new WebAssembly.Instance(
			this.#module,
			imports(() => wasm),
		);
		const wasm = exports as unknown as Exports;
		wasm.emscripten_stack_init();
		wasm.__wasm_call_ctors();
		const stackEnd = wasm.malloc(STACK_BYTES) >>> 0;
		if (stackEnd === 0) throw new Error("no memory for the parser's stack");
		this.#look(wasm);
		for (let i = 0; i < CANARY_WORDS; i++) this.#heap.writeUInt32LE(CANARY, stackEnd + 4 * i);
		wasm._emscripten_stack_restore((stackEnd + STACK_BYTES) & ~15);
		return { wasm, stackEnd };
	}

	#forget(): void {
		this.#instance = null;
		this.#heap = Buffer.from(new ArrayBuffer(0));
	}

	#look(wasm: Exports): void {
		if (this.#heap.buffer !== wasm.memory.buffer) this.#heap = Buffer.from(wasm.memory.buffer as ArrayBuffer);
	}

	#intact(stackEnd: number): boolean {
		for (let i = 0; i < CANARY_WORDS; i++) if (this.#word(stackEnd + 4 * i) !== CANARY) return false;
		return true;
	}

	#word(address: number): number {
		return this.#heap.readUInt32LE(address);
	}

	#string(address: number): string {
		return address === 0 ? "" : this.#heap.toString("utf8", address, this.#heap.indexOf(0, address));
	}
}

function failure(outcome: SqlError["outcome"], message: string, position = 0): SqlError {
	return { outcome, message, position };
}

/** Whether the error was raised by lexer or grammar (mbutils.c: strings that are not UTF-8), not by what is around them. */
function isGrammar(file: string): boolean {
	return /(scan\.l|gram\.y|parser\.c|mbutils\.c)$/.test(file);
}

/** An empty text has no `stmts` at all. */
function statements(root: { stmts?: { stmt?: Fields }[] }): Fields[] {
	const found: Fields[] = [];
	for (const { stmt } of root.stmts ?? []) if (stmt !== undefined) found.push(stmt);
	return found;
}
