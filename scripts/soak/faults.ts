// What is done to the world while its clients work: one fault at a time, each healed before the next. Knows nothing of clients.

import type { PostgresServer } from "../../test/support/postgres.ts";
import { RawClient } from "../../test/support/raw-client.ts";
import type { Tally } from "./tally.ts";
import type { World } from "./world.ts";

interface Fault {
	name: string;
	/** How often it is chosen, against the others. */
	weight: number;
	strike(world: World, dice: (below: number) => number): Promise<void>;
}

const pick = <T>(list: readonly T[], dice: (below: number) => number): T => list[dice(list.length)]!;

const terminate = (server: PostgresServer, limit: number) =>
	server.sql(
		`SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'pgdog' ORDER BY random() LIMIT ${limit}`,
	);

const FAULTS: Fault[] = [
	{
		name: "some backends are terminated",
		weight: 6,
		strike: async (world, dice) => void (await terminate(pick(world.servers, dice), 1 + dice(5))),
	},
	{
		name: "a backend is killed: all of the server's go",
		weight: 1,
		strike: async (world, dice) => {
			const server = pick(world.servers, dice);
			const [row] = await server.sql("SELECT pid FROM pg_stat_activity WHERE usename = 'pgdog' LIMIT 1");
			if (row !== undefined) process.kill(Number(row.pid), "SIGKILL");
		},
	},
	{
		name: "a replica freezes",
		weight: 3,
		strike: async (world, dice) => freeze(pick(world.replicas, dice), 500 + dice(3_000)),
	},
	{
		name: "a primary freezes",
		weight: 2,
		strike: async (world, dice) => freeze(pick(world.primaries, dice), 200 + dice(1_800)),
	},
	{
		name: "a replica vanishes and comes back",
		weight: 2,
		strike: async (world, dice) => {
			const replica = pick(world.replicas, dice);
			await replica.kill();
			await Bun.sleep(dice(2_000));
			await replica.start();
		},
	},
	{
		name: "a primary vanishes and comes back",
		weight: 1,
		strike: async (world, dice) => {
			const primary = pick(world.primaries, dice);
			await primary.kill();
			await Bun.sleep(dice(1_000));
			await primary.start();
		},
	},
	{
		name: "a server is restarted",
		weight: 2,
		strike: async (world, dice) => {
			const server = pick(world.servers, dice);
			await server.stop("fast");
			await server.start();
		},
	},
	{
		name: "a storm of RELOAD and RECONNECT",
		weight: 3,
		strike: async (world, dice) => {
			const proxy = pick(world.proxies, dice);
			for (let i = 0; i < 8; i++) {
				await world.command(proxy, dice(2) === 0 ? "RELOAD" : "RECONNECT");
				await Bun.sleep(dice(50));
			}
		},
	},
	{
		name: "PAUSE and RESUME",
		weight: 3,
		strike: async (world, dice) => {
			const proxy = pick(world.proxies, dice);
			for (let i = 0; i < 4; i++) {
				const paused = world.command(proxy, "PAUSE");
				await Bun.sleep(dice(200));
				await world.command(proxy, "RESUME");
				await paused;
				// The first one may have been quicker than the PAUSE, on a connection of its own.
				await world.command(proxy, "RESUME");
			}
		},
	},
	{
		name: "the pools change their size",
		weight: 2,
		strike: async (world, dice) => {
			const index = dice(world.proxies.length);
			for (const size of [2, 4 + dice(6), 6]) {
				world.resize(index, size);
				await world.command(world.proxies[index]!, "RELOAD");
				await Bun.sleep(dice(300));
			}
		},
	},
	{
		name: "forty clients come and say nothing",
		weight: 1,
		strike: async (world, dice) => {
			const { port } = pick(world.proxies, dice);
			const silent = await Promise.all(Array.from({ length: 40 }, () => RawClient.open({ port })));
			await Bun.sleep(dice(500));
			for (const client of silent) client.reset();
		},
	},
];

async function freeze(server: PostgresServer, time: number): Promise<void> {
	server.pause();
	try {
		await Bun.sleep(time);
	} finally {
		server.resume();
	}
}

/** Strikes until `isOver`, with a pause of some seconds after each; once, when `isLate`, a replica is promoted. */
export async function strike(
	world: World,
	tally: Tally,
	dice: (below: number) => number,
	isLate: () => boolean,
	isOver: () => boolean,
): Promise<void> {
	const promotion = { name: "a primary vanishes and a replica is promoted", strike: () => world.failOver() };
	const hat = FAULTS.flatMap((fault) => Array.from({ length: fault.weight }, () => fault));
	while (!isOver()) {
		const fault = isLate() && world.outdated === undefined ? promotion : pick(hat, dice);
		tally.faults++;
		try {
			await fault.strike(world, dice);
		} catch (error) {
			// Straight to a server that is just coming up, say. The proxy's own console has to answer.
			const message = (error as Error).message;
			if (fault === promotion) tally.wrong("unexpected", `${fault.name}: ${message}`);
			else if (/^waited/.test(message)) tally.wrong("hung", `${fault.name}: ${message.split("\n")[0]}`);
		}
		await Bun.sleep(500 + dice(2_500));
	}
}

/** Alters the table that clients prepare statements of, again and again, straight and through the proxies by turns. */
export async function migrate(world: World, dice: (below: number) => number, isOver: () => boolean): Promise<void> {
	const steps = [
		"ALTER TABLE shifting ADD COLUMN extra int DEFAULT 7",
		"ALTER TABLE shifting ALTER COLUMN extra TYPE text",
		"ALTER TABLE shifting DROP COLUMN extra",
		// A new column of the place and name, and another type.
		"ALTER TABLE shifting ADD COLUMN extra text DEFAULT 'x'",
		"ALTER TABLE shifting DROP COLUMN extra",
	];
	for (let i = 0; !isOver(); i++) {
		const sql = `SET lock_timeout = '1s'; ${steps[i % steps.length]}`;
		try {
			if (dice(2) === 0) await world.primaries[0]!.sql(sql, { user: "pgdog" });
			else {
				const door = pick(
					world.doors.filter(({ database }) => database === "main"),
					dice,
				);
				await using client = await world.enter(door);
				await client.query(sql);
			}
		} catch {
			// A server that is away: the next step may find the table otherwise than it expects, which is as well.
		}
		await Bun.sleep(300 + dice(900));
	}
}
