// What the WebAssembly module of parse.ts asks of its surroundings: a setjmp/longjmp that PostgreSQL's errors leave by, memory,
// and a C library's files, which it never needs. Emscripten's conventions (its docs, "setjmp-longjmp" and "Standalone Wasm").

/** The part of the module's exports that is used. Addresses are signed 32-bit numbers: `>>> 0` before use. */
export interface Exports {
	readonly memory: WebAssembly.Memory;
	readonly __indirect_function_table: WebAssembly.Table;
	malloc(bytes: number): number;
	free(address: number): void;
	parse_sql(text: number): number;
	free_parse_result(result: number): void;
	setThrew(thrown: number, value: number): void;
	emscripten_stack_init(): void;
	emscripten_stack_get_current(): number;
	_emscripten_stack_restore(address: number): void;
	__wasm_call_ctors(): void;
}

/** More than the largest text that we parse was seen to take, less than hurts the process. */
const MAX_MEMORY_BYTES = 2 ** 30;
const PAGE_BYTES = 65536;
/** "Bad file descriptor" and "function not implemented", in wasi's numbers. */
const WASI_BADF = 8;
const ENOSYS = 52;

/** Unwinds from longjmp to the `invoke_…` below it. Compared by identity, so that no other error passes for it. */
class LongJump {}

/** For one instance; `wasm` gives its exports once it is there. */
export function imports(wasm: () => Exports): Record<string, Record<string, (...args: number[]) => number>> {
	const jump = new LongJump();
	/** Calls through the table what may end in a longjmp; the module then asks `setThrew`'s flag whether it did. */
	const invoke = (index: number, ...args: number[]): number => {
		const exports = wasm();
		const stack = exports.emscripten_stack_get_current();
		try {
			return exports.__indirect_function_table.get(index)(...args);
		} catch (error) {
			if (error !== jump) throw error;
			exports._emscripten_stack_restore(stack);
			exports.setThrew(1, 0);
			return 0;
		}
	};
	const stop = (what: string) => () => {
		throw new Error(`the SQL parser called ${what}`);
	};
	const env = {
		invoke_i: invoke,
		invoke_ii: invoke,
		invoke_iii: invoke,
		invoke_iiii: invoke,
		invoke_iiiii: invoke,
		invoke_v: invoke,
		invoke_vi: invoke,
		invoke_vii: invoke,
		_emscripten_throw_longjmp: () => {
			throw jump;
		},
		emscripten_resize_heap: (bytes: number) => grow(wasm().memory, bytes >>> 0),
		emscripten_date_now: () => Date.now(),
		emscripten_get_now: () => performance.now(),
		__assert_fail: stop("assert"),
		_abort_js: stop("abort"),
		exit: stop("exit"),
		__syscall_openat: () => -ENOSYS,
	};
	const badFile = () => WASI_BADF;
	return { env, wasi_snapshot_preview1: { fd_close: badFile, fd_read: badFile, fd_seek: badFile, fd_write: badFile } };
}

/** Grows the memory by an eighth at least, so that a large text does not ask a thousand times. @returns 1; 0 when it cannot */
function grow(memory: WebAssembly.Memory, bytes: number): number {
	const now = memory.buffer.byteLength;
	if (bytes > MAX_MEMORY_BYTES) return 0;
	const wanted = Math.min(MAX_MEMORY_BYTES, Math.max(bytes, Math.ceil(now * 1.125)));
	try {
		memory.grow(Math.ceil((wanted - now) / PAGE_BYTES));
		return 1;
	} catch {
		return 0;
	}
}
