// What crosses between us, the bridge (plugins/bridge/) and a Rust plugin: numbers, layouts and the descriptions that worker
// threads are handed. Knows no library and calls nothing.

/** Equal to `ABI` in plugins/bridge/src/lib.rs. */
export const BRIDGE_ABI = 3;

/** Versions of the pgdog-plugin crate whose plugins the bridge can call. */
export const PLUGIN_CRATES = "0.1.6 to 0.1.8";

/** `PdRouterContext`'s four booleans as the bridge takes them. */
export const enum ContextFlag {
	HasReplicas = 1,
	HasPrimary = 2,
	InTransaction = 4,
	WriteOverride = 8,
}

/** `PdRoute.read_write`. */
export const enum ReadWrite {
	Write = 0,
	Read = 1,
	Unknown = 2,
}

/** `PdRoute.shard` below zero; zero and above name a shard. */
export const enum ShardCode {
	All = -1,
	Unknown = -2,
	Blocked = -3,
}

/** What came of asking all plugins about one statement. */
export const enum Outcome {
	/** No plugin provided anything: the router decides. */
	Unknown = 0,
	/** `shard` and `readWrite` say what the plugin named by `plugin` wants; either may be unknown, not both. */
	Provided = 1,
	/** The plugin named by `plugin` forbids the statement. */
	Blocked = 2,
	/** The parser refused the text, so no plugin was asked. PostgreSQL will report the error. */
	SyntaxError = 3,
	/**
	 * The text is deeper or longer than the bridge takes, so no plugin was asked, yet PostgreSQL might run it. Not to be
	 * sent: a plugin that guards would be bypassed. PostgreSQL's own error for such a text is 54001, "stack depth limit exceeded".
	 */
	TooComplex = 4,
	/** The Bind message contradicts itself, so no plugin was asked. PostgreSQL will report the protocol violation. */
	MalformedBind = 5,
	/** The parser failed in a way it never should; `message` says how. Not to be sent, for the same reason as TooComplex. */
	Broken = 6,
	/** There is no room for the thread that a deep statement needs, so not all plugins were asked. Not to be sent, likewise. */
	NoThread = 7,
}

/** Reasons for which `pgdog_bridge_parse` returns null. */
export const enum RefusedKind {
	Syntax = 1,
	TooComplex = 2,
	Broken = 3,
}

/** Positions in the table that `pgdog_bridge_table` fills. */
export const enum BridgeFunction {
	Parse = 0,
	Size = 1,
	Free = 2,
	Route = 3,
	ErrorKind = 4,
	ErrorPosition = 5,
	ErrorMessage = 6,
	Call = 7,
	Executes = 8,
	Shaped = 9,
	Forget = 10,
	Count = 11,
}

/** What of a plugin is run: `Part` in plugins/bridge/src/calls.rs. */
export const enum Part {
	Init = 1,
	Fini = 3,
}

/** A loaded plugin whose checks passed. Addresses hold in every thread of this process. */
export interface PluginDescription {
	/** As `[[plugins]]` spells it. */
	readonly name: string;
	/** The bridge knows the plugin by it, in the lines that it writes when the plugin crashes or does not come back. */
	readonly number: number;
	/** The file that was taken. */
	readonly file: string;
	/** From the plugin's Cargo.toml; empty when it does not tell. */
	readonly version: string;
	/** Milliseconds that finding, checking and opening it took. */
	readonly loadMilliseconds: number;
	/** Addresses of `pgdog_init`, `pgdog_fini`, `pgdog_route`; 0 when the plugin has none. */
	readonly init: number;
	readonly fini: number;
	readonly route: number;
}

/** All that a worker thread needs to call plugins: plain data, for `postMessage` or `workerData`. */
export interface HostDescription {
	/** Addresses of the bridge's functions, by `BridgeFunction`. Empty when no plugin was loaded. */
	readonly bridge: readonly number[];
	/** In the order of `[[plugins]]`. */
	readonly plugins: readonly PluginDescription[];
}

/** Where this room's lines go (log.ts's Log). `debug` must have written its line before it returns: see `PluginHost`. */
export interface PluginLog {
	debug(message: string): void;
	info(message: string): void;
	warn(message: string): void;
	error(message: string): void;
	/** Whether `debug` lines are written. */
	readonly debugs: boolean;
}

/** The description of a proxy without plugins. */
export const NO_PLUGINS: HostDescription = { bridge: [], plugins: [] };
