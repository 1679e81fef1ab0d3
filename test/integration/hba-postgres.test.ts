// The list [[hba]] beside PostgreSQL's own pg_hba.conf: the same lines at random, and log-ins at random, each asked by both in the same
// way, which is the one that `configcheck --login` tells.

import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { connect, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { connect as connectTls } from "node:tls";
import fc from "fast-check";
import { explainLogin, type HbaLogin, LOCAL } from "../../src/config/hba.ts";
import { load } from "../../src/config/load.ts";
import { Authority } from "../support/certificates.ts";
import { type Cluster, startPostgres } from "../support/postgres.ts";
import { type Proxy, startProxy } from "../support/proxy.ts";
import { within } from "../support/until.ts";
import { frontend } from "../support/wire-frames.ts";

setDefaultTimeout(60_000);

/** The system's user who asks, and whom `peer` lets in. */
const SELF = Bun.spawnSync(["id", "-un"]).stdout.toString().trim();
const USERS = [SELF, "ann", "Ann", "all", "sameuser", "a b", "a,b", "ü", "replication", "o'x", "d1", "+ann"];
const DATABASES = ["d1", "D1", "all", "sameuser", "x y", "ann", "ü", "replication", "a,b", "samerole"];
const NETWORKS = [
	"all",
	"127.0.0.0/8",
	"127.5.6.7/32",
	"127.5.6.6/31",
	"127.5.6.128/25",
	"0.0.0.0/0",
	"::/0",
	"samehost",
];
const HOSTS = [LOCAL, "127.0.0.1", "127.5.6.7", "127.5.6.6", "127.5.6.200", "127.99.0.1"];
/** How each method asks whoever has a SCRAM verifier. */
const ASKED: Record<string, number> = { trust: 0, password: 3, md5: 10, "scram-sha-256": 10 };

/** Each in its own way beside the rest; what PostgreSQL would not read at all keeps it from starting. */
const PATTERNS = [
	"/^a",
	"/n$",
	"/^.$",
	"/^..$",
	"/^[a-z]+$",
	"/[^a-z0-9]",
	"/\\d$",
	"/^\\w+$",
	"/\\W",
	"/^(d|x)",
	"/^(?:[ad]n?){2}1?$",
	"/^[-+]",
	"/ü",
	"/\\+",
	"/^a.b$",
	"/^(all|same.*)$",
	"/^[^ü]*$",
	"/^D?d1?$",
	"/^n*a{1,2}",
	"/a.*n.*n",
	"/^d{1}[0-9]{1,}$",
];

/** As they may stand in either file: what is no word stands in double quotes, and what is one may. */
const names = (known: readonly string[], keywords: readonly string[]) => {
	const name = fc.tuple(fc.constantFrom(...known), fc.boolean()).map(([name, isQuoted]) => {
		return isQuoted || !/^[\w'ü]+$/.test(name) || name === "samerole" ? `"${name}"` : name;
	});
	const pattern = fc.constantFrom(...PATTERNS).map((pattern) => `"${pattern}"`);
	const keyword = fc.constantFrom(...keywords);
	const word = fc.oneof(
		{ weight: 1, arbitrary: keyword },
		{ weight: 1, arbitrary: pattern },
		{ weight: 2, arbitrary: name },
	);
	return fc.array(word, { minLength: 1, maxLength: 3 }).map((words) => words.join());
};
const ENTRY = fc.record({
	type: fc.constantFrom("local", "host", "hostssl", "hostnossl"),
	database: names(DATABASES, ["all", "sameuser"]),
	user: names(USERS, ["all"]),
	address: fc.constantFrom(...NETWORKS),
	method: fc.constantFrom("reject", "peer", ...Object.keys(ASKED)),
});
const LOGIN: fc.Arbitrary<HbaLogin> = fc
	.record({
		user: fc.constantFrom(...USERS),
		database: fc.constantFrom(...DATABASES),
		host: fc.constantFrom(...HOSTS),
		isEncrypted: fc.boolean(),
	})
	.map((login) => ({ ...login, isEncrypted: login.isEncrypted && login.host !== LOCAL }));

const seed = Date.now() & 0x7fff_ffff;
const list = fc.sample(ENTRY, { numRuns: 50, seed }).map(({ address, ...entry }) => {
	if (entry.type === "local") return entry;
	// From elsewhere that would keep both from starting.
	return { ...entry, address, method: entry.method === "peer" ? "trust" : entry.method };
});
const line = (entry: { type: string; database: string; user: string; address?: string; method: string }) =>
	[entry.type, entry.database, entry.user, entry.address ?? "", entry.method].join(" ");

const folder = mkdtempSync(join(tmpdir(), "pgdog-hba-"));
let authority: Authority;
let cluster: Cluster;
let proxy: Proxy;

beforeAll(async () => {
	authority = await Authority.create();
	const pair = await authority.issue({ name: "localhost" });
	const own = ["local all postgres,pgdog trust", "host all postgres,pgdog 127.0.0.1/32 trust"];
	cluster = await startPostgres({
		hba: [...own, ...list.map(line), "local all all reject", "host all all all reject"],
		files: { "server.pem": pair.certificatePem, "server.key": pair.keyPem },
		settings: { ssl: "on", ssl_cert_file: "server.pem", ssl_key_file: "server.key" },
	});
	const { primary } = cluster;
	await primary.sql(USERS.map((user) => `CREATE ROLE "${user}" LOGIN PASSWORD 'pw'`).join("; "));
	const { host, port } = primary;
	proxy = await startProxy({
		config: {
			general: {
				unix_socket_dir: folder,
				tls_certificate: pair.certificate,
				tls_private_key: pair.key,
				min_pool_size: 0,
				failed_login_delay: 0,
				idle_healthcheck_interval: 600_000,
			},
			databases: DATABASES.map((name) => ({ name, host, port, database_name: "pgdog" })),
			hba: list,
		},
		users: USERS.map((name) => ({ name, all_databases: true, password: "pw" })) as never,
	});
});
afterAll(async () => {
	await proxy?.stop("SIGKILL");
	await cluster?.stop();
	authority?.[Symbol.dispose]();
	rmSync(folder, { recursive: true, force: true });
});

/** The Authentication request that comes first; null: the log-in is refused at once. */
async function asked({ user, database, host, isEncrypted }: HbaLogin, port: number, unix: string) {
	const to = host === LOCAL ? { path: unix } : { host: "127.0.0.1", port, localAddress: host };
	const socket = connect(to);
	const { promise, resolve, reject } = Promise.withResolvers<number | null>();
	const talk = (stream: Socket) => {
		stream.on("error", reject);
		stream.on("data", (chunk: Buffer) => resolve(chunk.toString("latin1", 0, 1) === "R" ? chunk.readInt32BE(5) : null));
		stream.write(frontend.startupMessage({ user, database }));
	};
	socket.on("error", reject);
	if (isEncrypted) {
		socket.write(frontend.sslRequest());
		socket.once("data", () => {
			const stream = connectTls({ socket, rejectUnauthorized: false }, () => talk(stream));
		});
	} else talk(socket);
	return within(promise, "the first answer").finally(() => socket.destroy());
}

test("lines of pg_hba.conf at random mean what they mean to PostgreSQL, and what configcheck --login says", async () => {
	const loaded = load({
		configPath: proxy.configPath,
		usersPath: proxy.usersPath,
		databaseUrls: [],
		overrides: {},
		env: {},
	});
	if (!loaded.ok) throw new Error(JSON.stringify(loaded.problems));
	const { primary } = cluster;
	for (const login of fc.sample(LOGIN, { numRuns: 100, seed })) {
		const { text, isRefused } = explainLogin(loaded.snapshot, login);
		const isPeer = text.endsWith(` peer (for the system's user ${JSON.stringify(login.user)} alone)`);
		const method = isPeer && login.user === SELF ? "trust" : text.slice(text.lastIndexOf(" ") + 1);
		const isOut = isRefused || (isPeer && login.user !== SELF);
		const said = isOut ? null : ASKED[method]!;
		// With a password in the configuration md5 can be told by MD5; PostgreSQL has a verifier.
		const ours = text.endsWith(" md5") ? 5 : said;
		const label = { seed, login, text };
		const [here, there] = await Promise.all([
			asked(login, proxy.port, join(folder, `.s.PGSQL.${proxy.port}`)),
			asked(login, primary.port, primary.socketPath),
		]);
		expect({ ...label, here, there }).toEqual({ ...label, here: ours, there: said });
	}
});
