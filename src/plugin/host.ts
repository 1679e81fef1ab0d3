// Calls the loaded plugins: `init` and `fini` on the main thread, `route` in every thread, each thread with a host of its own.
// router/router.ts asks it once per statement. Keeps the trees of recent texts, bounded by bytes.

import { CFunction, type Pointer, ptr } from "bun:ffi";
import { LRUCache } from "lru-cache";
import { now } from "../clock.ts";
import { OnceAMinute, timesText } from "../once-a-minute.ts";
import {
	BridgeFunction,
	ContextFlag,
	type HostDescription,
	Outcome,
	Part,
	type PluginDescription,
	type PluginLog,
	ReadWrite,
	RefusedKind,
	ShardCode,
} from "./abi.ts";

/** What plugins are told. The caller may keep one object and change it between calls. */
export interface RouteInput {
	/** One Query's or Parse's text. */
	sql: string;
	/** Its session reads backslashes in '…' as escapes: `standard_conforming_strings = off`. */
	escapes: boolean;
	/** Shards of the cluster, 1 or more. */
	shards: number;
	hasReplicas: boolean;
	hasPrimary: boolean;
	inTransaction: boolean;
	/** The router believes that this must go to a primary. */
	writeOverride: boolean;
	/**
	 * Parameters: the bytes of a Bind message from its count of format codes to the end of its values or beyond, as
	 * `bind[bindStart..bindEnd)`. Read where they lie, during the call only. Null with the simple protocol.
	 */
	bind: Uint8Array | null;
	bindStart: number;
	bindEnd: number;
}

/** The plugins' answer. The host reuses the object: valid until its next `route`. */
export class Decision {
	outcome: Outcome = Outcome.Unknown;
	/** A shard, or a `ShardCode`. */
	shard: number = ShardCode.Unknown;
	readWrite: ReadWrite = ReadWrite.Unknown;
	/** Name of the plugin that decided; empty unless the outcome is Provided or Blocked. */
	plugin = "";
	/** The parser's words; empty unless it refused the text. */
	message = "";
	/** Where the syntax error is, in characters from 1; 0 when unknown. */
	position = 0;
	/** Names of the prepared statements that the text runs by EXECUTE: of what they say plugins have seen nothing. */
	executes: readonly string[] = NO_NAMES;
}

const NO_NAMES: readonly string[] = [];

/** A parsed text. */
interface Tree {
	readonly address: number;
	readonly executes: readonly string[];
}

export interface HostOptions {
	readonly log: PluginLog;
	/** Bytes that the trees and texts kept by this thread may take. Default 16 MiB. */
	readonly cacheBytes?: number;
	/** Texts kept by this thread. Default 5000. */
	readonly cacheEntries?: number;
}

/** Bytes that a text takes beside its tree: the string itself, the entry of the cache. A guess. */
const ENTRY_BYTES = 200;
const NO_MESSAGE = new Uint8Array(new ArrayBuffer(8));

/** Lengths and addresses go as "ptr": a Number passed so costs least. */
const word = (value: number) => value as unknown as Pointer;

function bridgeFunctions(addresses: readonly number[]) {
	const at = (index: BridgeFunction) => word(addresses[index] ?? 0);
	return {
		parse: CFunction({ args: ["ptr", "ptr", "u32"], returns: "ptr", ptr: at(BridgeFunction.Parse) }),
		size: CFunction({ args: ["ptr"], returns: "f64", ptr: at(BridgeFunction.Size) }),
		free: CFunction({ args: ["ptr"], returns: "void", ptr: at(BridgeFunction.Free) }),
		route: CFunction({
			args: ["ptr", "u32", "ptr", "u32", "u32", "ptr", "ptr", "ptr"],
			returns: "f64",
			ptr: at(BridgeFunction.Route),
		}),
		errorKind: CFunction({ args: [], returns: "i32", ptr: at(BridgeFunction.ErrorKind) }),
		errorPosition: CFunction({ args: [], returns: "i32", ptr: at(BridgeFunction.ErrorPosition) }),
		errorMessage: CFunction({ args: ["ptr", "ptr"], returns: "i32", ptr: at(BridgeFunction.ErrorMessage) }),
		call: CFunction({ args: ["ptr", "u32", "u32"], returns: "void", ptr: at(BridgeFunction.Call) }),
		executes: CFunction({ args: ["ptr", "ptr", "ptr"], returns: "i32", ptr: at(BridgeFunction.Executes) }),
		shaped: CFunction({ args: ["ptr", "ptr"], returns: "ptr", ptr: at(BridgeFunction.Shaped) }),
		forget: CFunction({ args: [], returns: "void", ptr: at(BridgeFunction.Forget) }),
	};
}

export class PluginHost {
	/** False when there is nothing to ask: callers then skip `route` and all that prepares it. */
	readonly active: boolean;
	readonly #plugins: readonly PluginDescription[];
	readonly #bridge: ReturnType<typeof bridgeFunctions> | null;
	readonly #log: PluginLog;
	/** Trees by text, with a NUL before it when it is read with escapes. What leaves the cache is freed. */
	readonly #statements: LRUCache<string, Tree>;
	/** When `tellUnasked` may speak again, by reason, of which there is a handful. */
	readonly #unasked = new Map<string, OnceAMinute>();
	readonly #decision = new Decision();
	readonly #encoder = new TextEncoder();
	#initialized = false;
	#finished = false;

	constructor(description: HostDescription, options: HostOptions) {
		this.#plugins = description.plugins;
		this.#bridge = description.bridge.length === 0 ? null : bridgeFunctions(description.bridge);
		this.active = this.#bridge !== null && this.#plugins.some((plugin) => plugin.route !== 0);
		this.#log = options.log;
		const bytes = options.cacheBytes ?? 16 * 2 ** 20;
		this.#statements = new LRUCache<string, Tree>({
			max: options.cacheEntries ?? 5000,
			maxSize: bytes,
			// One text must not throw out all others.
			maxEntrySize: Math.max(1, Math.floor(bytes / 4)),
			dispose: ({ address }) => this.#bridge?.free(word(address)),
		});
	}

	get plugins(): readonly PluginDescription[] {
		return this.#plugins;
	}

	/** Bytes that this thread's trees and texts take. */
	get cachedBytes(): number {
		return this.#statements.calculatedSize;
	}

	/** Calls every plugin's `init`, in order, before the first client. Main thread, once per process. */
	init(): void {
		if (this.#initialized) throw new Error("plugins are initialized once per process");
		this.#initialized = true;
		for (const { name, number, version, init, loadMilliseconds } of this.#plugins) {
			const started = performance.now();
			if (init !== 0) {
				// If the plugin brings the process down, this is the last line and names it.
				this.#log.debug(`plugin "${name}": calling init`);
				this.#bridge?.call(word(init), number, Part.Init);
				this.#log.debug(`plugin "${name}" initialized`);
			}
			const milliseconds = loadMilliseconds + performance.now() - started;
			this.#log.info(`loaded "${name}" plugin (v${version}) [${milliseconds.toFixed(4)}ms]`);
		}
	}

	/** Calls every plugin's `fini`, in order, after the last client. Main thread; a second call does nothing. */
	fini(): void {
		if (!this.#initialized || this.#finished) return;
		this.#finished = true;
		for (const { name, number, fini } of this.#plugins) {
			if (fini === 0) continue;
			this.#log.debug(`plugin "${name}": calling fini`);
			this.#bridge?.call(word(fini), number, Part.Fini);
			this.#log.debug(`plugin "${name}" finished`);
		}
	}

	/**
	 * Asks the plugins in order; the first that provides a shard or a read-or-write wins, a block ends it, what is invalid counts
	 * as unknown. Synchronous, never throws for what a client sent. The answer is reused by the next call.
	 */
	route(input: RouteInput): Decision {
		const decision = this.#decision;
		decision.outcome = Outcome.Unknown;
		decision.shard = ShardCode.Unknown;
		decision.readWrite = ReadWrite.Unknown;
		decision.plugin = "";
		decision.executes = NO_NAMES;
		const bridge = this.#bridge;
		if (bridge === null || !this.active) return decision;

		const key = input.escapes ? `\0${input.sql}` : input.sql;
		const cached = this.#statements.get(key);
		if (cached !== undefined) {
			this.#ask(bridge, cached.address, cached.executes, input);
			return decision;
		}
		const text = this.#encoder.encode(input.sql);
		if (!input.escapes) {
			// A text that differs from others in constants only has a tree in the bridge, which keeps it.
			const shaped = Number(bridge.shaped(text, word(text.length)) ?? 0);
			if (shaped !== 0) {
				this.#ask(bridge, shaped, NO_NAMES, input);
				return decision;
			}
		}
		const address = Number(bridge.parse(text, text.length, input.escapes ? 1 : 0) ?? 0);
		if (address === 0) {
			this.#refused(bridge);
			return decision;
		}
		const tree = { address, executes: this.#executes(bridge, address) };
		this.#ask(bridge, address, tree.executes, input);
		const size = Math.ceil(bridge.size(word(address)) + 2 * key.length + ENTRY_BYTES);
		if (size > this.#statements.maxEntrySize) bridge.free(word(address));
		else this.#statements.set(key, tree, { size });
		return decision;
	}

	/** Names of the statements that the tree runs by EXECUTE. Nearly always none: then nothing is made. */
	#executes(bridge: ReturnType<typeof bridgeFunctions>, address: number): readonly string[] {
		const length = bridge.executes(word(address), NO_MESSAGE, word(0)) as number;
		if (length === 0) return NO_NAMES;
		const names = new Uint8Array(new ArrayBuffer(Math.max(8, length)));
		bridge.executes(word(address), names, word(length));
		return Buffer.from(names.buffer, 0, length - 1)
			.toString("utf8")
			.split("\0");
	}

	/** A statement was refused because plugins could not be asked about it: said once a minute for each reason. */
	tellUnasked(why: string): void {
		let tell = this.#unasked.get(why);
		if (tell === undefined) {
			tell = new OnceAMinute();
			this.#unasked.set(why, tell);
		}
		const times = tell.due(now());
		if (times === 0) return;
		this.#log.warn(`a statement was refused since plugins could not be asked about it: ${why}${timesText(times)}`);
	}

	/** Frees this thread's trees. The host may be used again. */
	clear(): void {
		this.#statements.clear();
		this.#bridge?.forget();
	}

	#ask(
		bridge: ReturnType<typeof bridgeFunctions>,
		address: number,
		executes: readonly string[],
		input: RouteInput,
	): void {
		const decision = this.#decision;
		decision.executes = executes;
		const flags =
			(input.hasReplicas ? ContextFlag.HasReplicas : 0) |
			(input.hasPrimary ? ContextFlag.HasPrimary : 0) |
			(input.inTransaction ? ContextFlag.InTransaction : 0) |
			(input.writeOverride ? ContextFlag.WriteOverride : 0);
		const bind = input.bind ?? NO_MESSAGE;
		const start = input.bind === null ? 0 : input.bindStart;
		const length = input.bind === null ? 0 : Math.min(input.bindEnd, bind.length) - start;
		// An empty slice would pass for the simple protocol.
		if (input.bind !== null && (length <= 0 || start < 0)) {
			decision.outcome = Outcome.MalformedBind;
			return;
		}
		for (let i = 0; i < this.#plugins.length; i++) {
			const plugin = this.#plugins[i] as PluginDescription;
			if (plugin.route === 0) continue;
			// If the plugin brings the process down, this is the last line and names it.
			if (this.#log.debugs) this.#log.debug(`plugin "${plugin.name}": calling route`);
			const { route: pluginRoute, number } = plugin;
			const route = bridge.route(pluginRoute, number, address, input.shards, flags, bind, start, length) as number;
			// shard × 4 + read_write; NaN for a malformed message, infinity when the plugin could not be asked.
			if (!Number.isFinite(route)) {
				decision.outcome = Number.isNaN(route) ? Outcome.MalformedBind : Outcome.NoThread;
				return;
			}
			const shard = Math.floor(route / 4);
			const readWrite = route - shard * 4;
			if (shard === ShardCode.Blocked) {
				decision.outcome = Outcome.Blocked;
			} else if (shard !== ShardCode.Unknown || readWrite !== ReadWrite.Unknown) {
				decision.outcome = Outcome.Provided;
			} else {
				continue;
			}
			decision.shard = shard;
			decision.readWrite = readWrite;
			decision.plugin = plugin.name;
			return;
		}
	}

	#refused(bridge: ReturnType<typeof bridgeFunctions>): void {
		const decision = this.#decision;
		const kind = bridge.errorKind() as RefusedKind;
		decision.outcome =
			kind === RefusedKind.Syntax
				? Outcome.SyntaxError
				: kind === RefusedKind.TooComplex
					? Outcome.TooComplex
					: Outcome.Broken;
		const buffer = new Uint8Array(new ArrayBuffer(4096));
		const length = bridge.errorMessage(ptr(buffer), buffer.length) as number;
		decision.message = new TextDecoder().decode(buffer.subarray(0, Math.min(length, buffer.length)));
		decision.position = bridge.errorPosition() as number;
	}
}
