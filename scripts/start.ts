// `npm start`: an embedded PostgreSQL (a primary and a streaming replica, a small table) and dist/pgdog on 127.0.0.1:6432 in
// front of it. Ctrl-C or SIGTERM stops all of it and removes the folder it lived in. PGDOG_PORT names another port.

import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { stringify } from "smol-toml";
import { type Cluster, startPostgres } from "../test/support/postgres.ts";
import { proxyCommand } from "../test/support/proxy.ts";
import { adopt } from "../test/support/reaper.ts";
import { LACK_FILE } from "./build.ts";

const host = "127.0.0.1";
const port = Number(process.env.PGDOG_PORT ?? 6432);

/** Left by scripts/build.ts when it had to build without the plugin bridge. */
const LACK = join(import.meta.dir, "../dist", LACK_FILE);

const SEED = `
	CREATE TABLE cities (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text NOT NULL, country text NOT NULL,
		inhabitants bigint NOT NULL);
	INSERT INTO cities (name, country, inhabitants) VALUES
		('Nairobi', 'Kenya', 4397073), ('Lagos', 'Nigeria', 15388000), ('Lima', 'Peru', 10092000),
		('Bergen', 'Norway', 291189), ('Osaka', 'Japan', 2753862), ('Porto', 'Portugal', 231800),
		('Hobart', 'Australia', 197451), ('Tbilisi', 'Georgia', 1258526), ('Halifax', 'Canada', 439819),
		('Valparaiso', 'Chile', 296655);
`;

/** Resolves at the first signal; later ones change nothing, since the terminal and npm may both send theirs. */
function stopAsked(): Promise<string> {
	return new Promise((resolve) => {
		for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) process.on(signal, () => resolve(signal));
	});
}

function startProxy(cluster: Cluster): Bun.Subprocess<"ignore", "inherit", "pipe"> {
	// Inside the cluster's folder, which goes away even when we are killed.
	const folder = join(cluster.folder, "proxy");
	mkdirSync(folder);
	// The primary first.
	const servers = [cluster.primary, ...cluster.replicas];
	const config = {
		general: { host, port, shutdown_timeout: 5_000 },
		databases: servers.map(({ host, port }, index) => ({
			name: "pgdog",
			host,
			port,
			role: index === 0 ? "primary" : "replica",
		})),
		admin: { password: "pgdog" },
	};
	const users = { users: [{ name: "pgdog", database: "pgdog", password: "pgdog" }] };
	writeFileSync(join(folder, "pgdog.toml"), stringify(config));
	writeFileSync(join(folder, "users.toml"), stringify(users));
	const child = Bun.spawn([...proxyCommand(), "--config", "pgdog.toml", "--users", "users.toml"], {
		cwd: folder,
		stdin: "ignore",
		stdout: "inherit",
		stderr: "pipe",
		// A process group of its own: Ctrl-C is for us, who then stop the proxy first and PostgreSQL after it.
		detached: true,
	});
	adopt(child);
	return child;
}

/** Shows the proxy's log as it comes. Resolves true at its listening line, false when it ends without one. */
function showLog(child: Bun.Subprocess<"ignore", "inherit", "pipe">): Promise<boolean> {
	return new Promise((resolve) => {
		const decoder = new TextDecoder();
		let start = "";
		void (async () => {
			for await (const chunk of child.stderr) {
				process.stderr.write(chunk);
				if (start.length > 100_000) continue;
				start += decoder.decode(chunk, { stream: true });
				if (start.includes("listening on")) resolve(true);
			}
			resolve(false);
		})();
	});
}

async function main(): Promise<number> {
	const stop = stopAsked();
	let ended = false;
	void stop.then(() => {
		ended = true;
	});
	let cluster: Cluster | undefined;
	let child: Bun.Subprocess<"ignore", "inherit", "pipe"> | undefined;
	try {
		console.log("starting PostgreSQL: a primary and a streaming replica");
		cluster = await startPostgres({ replicas: 1 });
		await cluster.primary.sql(SEED, { user: "pgdog" });
		await cluster.replicated();
		if (ended) return 0;
		child = startProxy(cluster);
		const listening = await Promise.race([showLog(child), stop.then(() => true)]);
		if (!listening) return 1;
		if (!ended) {
			console.log(`
PostgreSQL: primary ${host}:${cluster.primary.port}, replica ${host}:${cluster.replicas[0]?.port}
Try:        psql 'postgres://pgdog:pgdog@${host}:${port}/pgdog' -c 'SELECT * FROM cities'
Admin:      psql 'postgres://admin:pgdog@${host}:${port}/admin' -c 'SHOW POOLS'
Stop:       Ctrl-C
`);
			if (existsSync(LACK)) console.error(readFileSync(LACK, "utf8"));
		}
		const why = await Promise.race([stop, child.exited]);
		if (typeof why === "number") {
			console.error(`the proxy ended by itself, exit code ${why}`);
			return 1;
		}
		console.log(`${why}: stopping`);
		return 0;
	} finally {
		if (child) {
			const late = setTimeout(() => child?.kill("SIGKILL"), 10_000);
			child.kill("SIGINT");
			await child.exited;
			clearTimeout(late);
		}
		await cluster?.stop();
	}
}

process.exit(await main());
