// Traces a query and a Bind through the proxy, run from source before a real PostgreSQL: alone, with a replica, over two shards.

import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { stringify } from "smol-toml";
import { type Cluster, freePort, startPostgres } from "../../test/support/postgres.ts";
import { RawClient } from "../../test/support/raw-client.ts";
import { adopt } from "../../test/support/reaper.ts";
import { until, within } from "../../test/support/until.ts";
import { frontend } from "../../test/support/wire-frames.ts";
import { SOURCE } from "../syntax.ts";
import { instrument, type Place } from "./instrument.ts";
import {
	type Call,
	callsText,
	type Figures,
	type FromProxy,
	figures,
	INSTRUMENTED,
	longestWay,
	type ToProxy,
} from "./recording.ts";

const ROOT = join(import.meta.dir, "..", "..");
const SHARDS = ["s0", "s1"];

export const SCENES = ["plain", "with a replica", "over two shards"] as const;
export const REQUESTS = ["SELECT 1", "Bind"] as const;
export type Scene = (typeof SCENES)[number];
export type Request = (typeof REQUESTS)[number];

export interface Trace extends Figures {
	scene: Scene;
	request: Request;
	/** The calls in order, indented. */
	text: string;
}

/** So often a request is made before it is recorded, and so often it is recorded. */
const WARM = 50;
const RECORDED = 21;

export async function traceAll(): Promise<Trace[]> {
	await using cluster = await startPostgres({ replicas: 1, databases: SHARDS });
	for (const database of SHARDS)
		await cluster.primary.sql("CREATE TABLE here (); INSERT INTO here DEFAULT VALUES", { user: "pgdog", database });
	await cluster.replicated();
	const { sources, places } = await instrument();
	const traces: Trace[] = [];
	for (const scene of SCENES) traces.push(...(await traceScene(scene, cluster, sources, places)));
	return traces;
}

async function traceScene(
	scene: Scene,
	cluster: Cluster,
	sources: ReadonlyMap<string, string>,
	places: readonly Place[],
): Promise<Trace[]> {
	// Over shards a query without a table would be for one of them.
	const sql = scene === "over two shards" ? "SELECT 1 FROM here" : "SELECT 1";
	await using proxy = new TracedProxy(serversOf(scene, cluster), sources);
	await proxy.start();
	await using client = await RawClient.connect({
		port: proxy.port,
		user: "pgdog",
		password: "pgdog",
		database: "pgdog",
	});
	client.send(frontend.parse(sql, "named"), frontend.sync());
	await client.result();
	const bytes: Record<Request, Uint8Array> = {
		"SELECT 1": frontend.query(sql),
		Bind: Buffer.concat([frontend.bind({ statement: "named" }), frontend.execute(), frontend.sync()]),
	};
	const traces: Trace[] = [];
	for (const request of REQUESTS) {
		const calls = await proxy.record(client, bytes[request]);
		traces.push({ scene, request, ...figures(calls, places), text: callsText(calls, places) });
	}
	return traces;
}

function serversOf(scene: Scene, cluster: Cluster): Record<string, unknown>[] {
	const { host, port } = cluster.primary;
	const primary = { name: "pgdog", host, port };
	if (scene === "plain") return [primary];
	if (scene === "with a replica") return [primary, { ...primary, port: cluster.replicas[0]!.port, role: "replica" }];
	return SHARDS.map((database_name, shard) => ({ ...primary, database_name, shard }));
}

/** The proxy from source, on one thread, which records its calls. */
class TracedProxy implements AsyncDisposable {
	readonly port = freePort();
	private readonly folder = mkdtempSync(join(tmpdir(), "pgdog-trace-"));
	private readonly child: Bun.Subprocess<"ignore", "ignore", "inherit">;
	private readonly messages: FromProxy[] = [];

	/** @param sources as `instrument` made them */
	constructor(databases: Record<string, unknown>[], sources: ReadonlyMap<string, string>) {
		const general = { host: "127.0.0.1", port: this.port, workers: 0, default_pool_size: 1, log_level: "warn" };
		const [config, users] = [join(this.folder, "pgdog.toml"), join(this.folder, "users.toml")];
		writeFileSync(config, stringify({ general, databases, admin: { password: "pgdog" } }));
		writeFileSync(users, stringify({ users: [{ name: "pgdog", database: "pgdog", password: "pgdog" }] }));
		const instrumented = join(this.folder, "instrumented.json");
		writeFileSync(instrumented, JSON.stringify([...sources].map(([file, text]) => [join(SOURCE, file), text])));
		const preload = join(import.meta.dir, "preload.ts");
		const main = join(SOURCE, "main.ts");
		this.child = Bun.spawn([process.execPath, "--preload", preload, main, "--config", config, "--users", users], {
			cwd: ROOT,
			env: { ...process.env, [INSTRUMENTED]: instrumented },
			stdin: "ignore",
			stdout: "ignore",
			stderr: "inherit",
			ipc: (message) => void this.messages.push(message as FromProxy),
		});
		adopt(this.child);
	}

	/** Waits until it listens. */
	async start(): Promise<void> {
		await until(() => this.hasEnded() || listens(this.port), "the traced proxy to listen", 30_000);
	}

	/** The calls that answer `request` of `client`, when it has been asked often. */
	async record(client: RawClient, request: Uint8Array): Promise<Call[]> {
		const ask = async () => {
			client.send(request);
			const { errors, rows } = await client.result();
			if (errors.length > 0 || rows.length === 0) throw new Error(`not answered: ${JSON.stringify(errors)}`);
		};
		for (let time = 0; time < WARM; time++) await ask();
		const recordings: Call[][] = [];
		for (let time = 0; time < RECORDED; time++) {
			this.tell("start");
			await this.next("recording");
			await ask();
			this.tell("stop");
			recordings.push((await this.next("recorded")).calls);
		}
		return longestWay(recordings);
	}

	private hasEnded(): boolean {
		return this.child.exitCode !== null || this.child.signalCode !== null;
	}

	private tell(message: ToProxy): void {
		this.child.send(message);
	}

	private async next<Type extends FromProxy["type"]>(type: Type): Promise<Extract<FromProxy, { type: Type }>> {
		await until(() => this.messages.length > 0 || this.hasEnded(), `"${type}"`, 60_000);
		const message = this.messages.shift();
		if (message?.type !== type) throw new Error(`the traced proxy said ${message?.type} instead of ${type}`);
		return message as Extract<FromProxy, { type: Type }>;
	}

	async [Symbol.asyncDispose](): Promise<void> {
		this.child.kill("SIGKILL");
		await within(this.child.exited, "the traced proxy to end");
		rmSync(this.folder, { recursive: true });
	}
}

async function listens(port: number): Promise<boolean> {
	try {
		const socket = await Bun.connect({ hostname: "127.0.0.1", port, socket: { data() {} } });
		socket.end();
		return true;
	} catch {
		return false;
	}
}
