// What the tests of routing and of plugins share: a proxy before a primary and its replica, where a statement ran, what was
// sent to any server, and what the plugin `scribe` (test/plugin/fixtures/scribe) wrote down.

import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { folder } from "../plugin/support.ts";
import { type Cluster, startPostgres } from "../support/postgres.ts";
import { type Proxy, type ProxyOptions, startProxy } from "../support/proxy.ts";
import type { QueryResult, RawClient } from "../support/raw-client.ts";
import { until } from "../support/until.ts";

export interface Plugin {
	name: string;
	required?: boolean;
}

/** A call of the plugin's `route`, as it saw it. */
export interface Note {
	shards: number;
	replicas: boolean;
	primary: boolean;
	transaction: boolean;
	override: boolean;
	statements: number;
	/** Names of tables, and the string constants in a SELECT's list. */
	words: string[];
	/** Text as it is; what is longer than 100 bytes as length and sum. */
	parameters: (string | null | { binary: number[] } | { length: number; sum: number })[];
}

/** All that a server gets is in its log: each Query, Parse, Bind and Execute with its text. */
export const LOGGING = { log_statement: "all", log_min_duration_statement: 0 };

export function startServers(replicas = 1): Promise<Cluster> {
	return startPostgres({ replicas, settings: LOGGING });
}

export type Roles = ("primary" | "replica")[];

export function routedOptions(
	cluster: Cluster,
	plugins: Plugin[] = [],
	general: Record<string, unknown> = {},
	roles: Roles = ["primary", "replica"],
): ProxyOptions {
	const databases = roles.map((role) => {
		const server = role === "primary" ? cluster.primary : cluster.replicas[0]!;
		return { name: "pgdog", host: server.host, port: server.port, role };
	});
	return {
		config: { general: { min_pool_size: 0, workers: 1, ...general }, databases, plugins, admin: { password: "pgdog" } },
		users: [{ name: "pgdog", database: "pgdog", password: "pgdog" }],
	};
}

export function startRouted(
	cluster: Cluster,
	plugins: Plugin[] = [],
	general: Record<string, unknown> = {},
	roles: Roles = ["primary", "replica"],
	more: Partial<ProxyOptions> = {},
): Promise<Proxy> {
	return startProxy({ ...routedOptions(cluster, plugins, general, roles), ...more });
}

/** A file for the scribe, and what stands in it since the last look. */
export class Notes {
	readonly file = join(folder(), "notes");
	readonly env = { SCRIBE_NOTES: this.file };
	#seen = 0;

	/** All lines: calls, and the words `init` and `fini`. */
	all(): (Note | string)[] {
		if (!existsSync(this.file)) return [];
		const lines = readFileSync(this.file, "utf8").split("\n").filter(Boolean);
		return lines.map((line) => JSON.parse(line) as Note | string);
	}

	/** A call is written before its statement is sent, so nothing has to be waited for. */
	fresh(): Note[] {
		const all = this.all();
		const fresh = all.slice(this.#seen).filter((line) => typeof line !== "string");
		this.#seen = all.length;
		return fresh as Note[];
	}
}

/** Which of the servers have been sent something with this text: `primary`, `replica1`, both or none. */
export function servedBy(cluster: Cluster, text: string): string[] {
	return [cluster.primary, ...cluster.replicas].filter(({ log }) => log.includes(text)).map(({ name }) => name);
}

/** Likewise, but a statement that was only parsed does not count. */
export function executedBy(cluster: Cluster, text: string): string[] {
	const runs = (line: string) => line.includes(text) && !/ parse \S+: /.test(line);
	return [cluster.primary, ...cluster.replicas].filter(({ log }) => log.split("\n").some(runs)).map(({ name }) => name);
}

/** Every server has written its log up to now. Then what is not in it was not sent. */
export async function logsAreWritten(cluster: Cluster): Promise<void> {
	const mark = `mark ${Bun.randomUUIDv7()}`;
	for (const server of [cluster.primary, ...cluster.replicas]) {
		await server.sql(`SELECT '${mark}'`);
		await until(() => server.log.includes(mark), `${mark} in the log of ${server.name}`);
	}
}

/** For a SELECT's list: the port of the server that runs it. */
export const PORT = "current_setting('port')";

/** The servers that `count` runs of a statement came to, by their ports in the first row and column. */
export async function placesOf(
	cluster: Cluster,
	count: number,
	run: (i: number) => Promise<QueryResult>,
): Promise<("primary" | "replica")[]> {
	const places = new Set<"primary" | "replica">();
	for (let i = 0; i < count; i++) {
		const { rows, errors } = await run(i);
		const port = Number(rows[0]?.[0]);
		if (port === cluster.primary.port) places.add("primary");
		else if (port === cluster.replicas[0]?.port) places.add("replica");
		else throw new Error(`neither server: ${JSON.stringify({ rows, errors })}`);
	}
	return [...places].sort();
}

/** A pool per server and chance between them: both have been met after so many tries, but for one case in 10^9. */
export const TRIES = 32;

/**
 * Messages of an answer by their codes: `TDCZ`. Without ParameterStatus: a client that moves between primary and replica
 * is told `in_hot_standby`.
 */
export function codes(result: QueryResult): string {
	const codes = result.messages.map(({ code }) => code);
	return codes.filter((code) => code !== "S").join("");
}

/** SQLSTATE and text of the first error. */
export function errorOf(result: QueryResult): [string, string] | null {
	const error = result.errors[0];
	return error === undefined ? null : [error.C ?? "", error.M ?? ""];
}

/** The messages, in one write; then the answers up to as many ReadyForQuery. */
export async function pipelined(client: RawClient, answers: number, ...messages: Uint8Array[]): Promise<QueryResult[]> {
	client.send(Buffer.concat(messages));
	const results: QueryResult[] = [];
	for (let i = 0; i < answers; i++) results.push(await client.result());
	return results;
}
