// The list [[hba]] on the whole proxy: each type with each method for each way to come, how it meets everything else that decides who
// gets in, and what a reload and `configcheck --login` make of it.

import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { networkInterfaces, tmpdir } from "node:os";
import { join } from "node:path";
import { Authority, type Pair } from "../support/certificates.ts";
import { errorFields } from "../support/message.ts";
import { type Cluster, startPostgres } from "../support/postgres.ts";
import { type Proxy, proxyCommand, startProxy } from "../support/proxy.ts";
import { type LoginError, RawClient, type RawClientOptions, type Tls } from "../support/raw-client.ts";
import { runTool, testWithTool } from "../support/tools.ts";
import { until } from "../support/until.ts";
import { frontend } from "../support/wire-frames.ts";
import { admin, connect, one } from "./support.ts";

setDefaultTimeout(60_000);

const TYPES = ["local", "host", "hostssl", "hostnossl"] as const;
/** The Authentication request by which each method asks; 0: none does. */
const METHODS = { trust: 0, reject: null, password: 3, md5: 5, "scram-sha-256": 10, cert: 0, peer: 0 } as const;
type Method = keyof typeof METHODS;
/** How one comes, and the types that one meets so. */
const WAYS = {
	socket: ["local"],
	plain: ["host", "hostnossl"],
	tls: ["host", "hostssl"],
	"tls with a certificate": ["host", "hostssl"],
} as const;
type Way = keyof typeof WAYS;

/** Each entry has a database of its own, by which it is met. */
const PAIRS = TYPES.flatMap((type) =>
	(Object.keys(METHODS) as Method[])
		.filter((method) => method !== "cert" || type === "hostssl")
		.filter((method) => method !== "peer" || type === "local")
		.map((method) => ({ type, method, database: `${type}_${method}` })),
);

const folder = mkdtempSync(join(tmpdir(), "pgdog-hba-"));
let cluster: Cluster;
let authority: Authority;
let localhost: Pair;
let ofAnn: Pair;
let proxy: Proxy;
let verifier: string;

const entry = (type: string, database: string, user: string, method: string, address = "all") => ({
	type,
	database,
	user,
	...(type === "local" ? {} : { address }),
	method,
});

function configuration(hba: object[], general: Record<string, unknown> = {}) {
	const { host, port } = cluster.primary;
	const names = ["pgdog", "elsewhere", "both", ...PAIRS.map(({ database }) => database)];
	return {
		general: {
			unix_socket_dir: folder,
			tls_certificate: localhost.certificate,
			tls_private_key: localhost.key,
			tls_client_ca_certificate: authority.path,
			min_pool_size: 0,
			failed_login_delay: 0,
			idle_healthcheck_interval: 600_000,
			...general,
		},
		admin: { password: "of the admin" },
		databases: names.map((name) => ({ name, host, port, database_name: "pgdog" })),
		hba,
	};
}

const SERVER = { server_user: "pgdog", server_password: "pgdog" };
const LIST = [
	...PAIRS.map(({ type, method, database }) => entry(type, database, "all", method)),
	entry("host", "both", "all", "md5"),
	entry("host", "elsewhere", "all", "trust", "10.0.0.0/8"),
	entry("host", "admin", "all", "trust", "samehost"),
];

beforeAll(async () => {
	[cluster, authority] = await Promise.all([
		startPostgres({ hba: ["host all fiver 127.0.0.1/32 md5"] }),
		Authority.create(),
	]);
	[localhost, ofAnn] = await Promise.all([
		authority.issue({ name: "localhost", dns: ["localhost"], ips: ["127.0.0.1"] }),
		authority.issue({ name: "ann" }),
	]);
	verifier = (await runTool([...proxyCommand(), "hash", "hashed secret"])).stdout.trim();
	const optional = { all_databases: true, tls_client_certificate_required: false, ...SERVER };
	const users = [
		{ name: "ann", password: "pw", ...optional },
		{ name: "hashed", password_hash: verifier, ...optional },
		{ name: "sure", identity: "ann", ...optional },
		{ name: "strict", password: "pw", all_databases: true, ...SERVER },
	];
	proxy = await startProxy({ config: configuration(LIST), users: users as never });
});
afterAll(async () => {
	await proxy?.stop("SIGKILL");
	await cluster?.stop();
	authority?.[Symbol.dispose]();
	rmSync(folder, { recursive: true, force: true });
});

const certificate = (): Tls => ({ cert: ofAnn.certificatePem, key: ofAnn.keyPem });

function comingBy(way: Way, { port } = proxy): RawClientOptions {
	if (way === "socket") return { unix: join(folder, `.s.PGSQL.${port}`) };
	return { port, ...(way === "plain" ? {} : { tls: way === "tls" ? {} : certificate() }) };
}

/** The first request, and what came of the log-in: "in", or the error. */
async function logIn(way: Way, database: string, user = "ann", password = "pw", to = proxy) {
	const options = comingBy(way, to);
	await using client = await RawClient.open(options);
	if (options.tls) await client.requestTls(options.tls);
	const said = await client.login({ user, database, password }).then(
		() => "in",
		({ fields }: LoginError) => `${fields.C} ${fields.M}`,
	);
	const first = client.received.find(({ code }) => code === "R");
	return { asked: first?.body.readInt32BE(0) ?? null, said };
}

const words = (way: Way, database: string, user = "ann") =>
	`for host "${way === "socket" ? "[local]" : "127.0.0.1"}", user "${user}", database "${database}", ` +
	(way.startsWith("tls") ? "SSL encryption" : "no encryption");
const wrong = (database: string, user = "ann") =>
	`28000 password for user "${user}" and database "${database}" is wrong, or the database does not exist`;

for (const way of Object.keys(WAYS) as Way[])
	test(`by ${way}: each type with each method, the right password and a wrong one, a user and nobody`, async () => {
		for (const { type, method, database } of PAIRS) {
			const met = (WAYS[way] as readonly string[]).includes(type);
			for (const [user, password] of [
				["ann", "pw"],
				["ann", "wrong"],
				["nobody", "pw"],
			] as const) {
				const label = `${type} ${method} ${user} ${password}`;
				const outcome = { label, ...(await logIn(way, database, user, password)) };
				if (!met) {
					const said = `28000 no [[hba]] entry ${words(way, database, user)}`;
					expect(outcome).toEqual({ label, asked: null, said });
				} else if (method === "reject") {
					const said = `28000 [[hba]] rejects connection ${words(way, database, user)}`;
					expect(outcome).toEqual({ label, asked: null, said });
				} else if (method === "peer") {
					// The system has no such users.
					const said = `28000 Peer authentication failed for user "${user}"`;
					expect(outcome).toEqual({ label, asked: null, said });
				} else {
					const shows = method === "trust" || (method === "cert" && way === "tls with a certificate");
					const isIn = user === "ann" && (shows || (method !== "cert" && password === "pw"));
					// Where certificates are asked for, who is not known has to show one.
					const isAsked = isIn || (METHODS[method] !== 0 && (user === "ann" || way !== "tls"));
					const asked = isAsked ? METHODS[method] : null;
					expect(outcome).toEqual({ label, asked, said: isIn ? "in" : wrong(database, user) });
				}
			}
		}
	});

testWithTool("psql", "psql: each method, by the socket, without TLS and with it", async (path) => {
	const psql = async (way: "socket" | "plain" | "tls", database: string, more = "") => {
		const where = way === "socket" ? folder : "127.0.0.1";
		const mode = way === "tls" ? "require" : "disable";
		const target = `host=${where} port=${proxy.port} user=ann password=pw dbname=${database} sslmode=${mode} ${more}`;
		const { stdout, stderr } = await runTool([path, "-XAtqc", "SELECT 'in'", target]);
		return stdout.trim() || (stderr.split("\n")[0] ?? "").replace(/^.*failed: (FATAL: +)?/, "");
	};
	for (const way of ["socket", "plain", "tls"] as const) {
		const own = { socket: "local", plain: "hostnossl", tls: "hostssl" }[way];
		const tried = PAIRS.filter(({ type, method }) => type === own || (type === "host" && method === "trust"));
		const said = tried.map(async ({ type, method, database }) => {
			const met = (WAYS[way] as readonly string[]).includes(type);
			const told = await psql(way, database);
			const label = `${way} ${database}: `;
			if (!met) expect(label + told).toBe(`${label}no [[hba]] entry ${words(way, database)}`);
			else if (method === "reject") expect(label + told).toContain("[[hba]] rejects connection");
			else if (method === "peer") expect(label + told).toContain('Peer authentication failed for user "ann"');
			else if (method === "cert") expect(label + told).toContain("is wrong, or the database does not exist");
			else expect(label + told).toBe(`${label}in`);
		});
		await Promise.all(said);
	}
	const shown = `sslcert=${ofAnn.certificate} sslkey=${ofAnn.key}`;
	expect(await psql("tls", "hostssl_cert", shown)).toBe("in");
	// What is bound to the channel is by SCRAM only.
	expect(await psql("tls", "hostssl_scram-sha-256", "channel_binding=require")).toBe("in");
	expect(await psql("tls", "hostssl_md5", "channel_binding=require")).toContain("channel binding");
});

test("a user with a verifier is asked by SCRAM also where md5 is the method, and by the others as all", async () => {
	const by = (database: string, password = "hashed secret") => logIn("plain", database, "hashed", password);
	expect(await by("both")).toEqual({ asked: 10, said: "in" });
	expect(await by("both", "no")).toEqual({ asked: 10, said: wrong("both", "hashed") });
	expect(await by("host_password")).toEqual({ asked: 3, said: "in" });
	expect(await by("host_scram-sha-256")).toEqual({ asked: 10, said: "in" });
	expect(await logIn("plain", "both")).toEqual({ asked: 5, said: "in" });
});

test("a user with an identity shows its certificate whatever the method is, and is rejected all the same", async () => {
	for (const database of ["hostssl_trust", "hostssl_md5", "hostssl_cert"]) {
		expect(await logIn("tls with a certificate", database, "sure")).toEqual({ asked: 0, said: "in" });
		expect((await logIn("tls", database, "sure")).said).toBe(wrong(database, "sure"));
	}
	expect((await logIn("plain", "host_trust", "sure")).said).toBe(wrong("host_trust", "sure"));
	expect((await logIn("tls with a certificate", "hostssl_reject", "sure")).said).toContain("rejects");
	// The certificate of another's name is not enough for cert.
	expect((await logIn("tls with a certificate", "hostssl_cert", "strict")).said).toBe(wrong("hostssl_cert", "strict"));
	await proxy.waitForLog(/its certificate is of "ann", its user is another/);
	await proxy.waitForLog(/client "sure" connected to database "hostssl_md5" .*, auth: cert\]/);
});

test("tls_client_ca_certificate asks for a certificate beside the password, as without a list", async () => {
	expect((await logIn("tls", "hostssl_md5", "strict")).said).toBe(wrong("hostssl_md5", "strict"));
	expect((await logIn("tls", "hostssl_trust", "strict")).said).toBe(wrong("hostssl_trust", "strict"));
	expect((await logIn("tls with a certificate", "hostssl_md5", "strict")).said).toBe("in");
	expect((await logIn("plain", "hostnossl_md5", "strict")).said).toBe("in");
});

test("an address of another network meets nothing; trust asks the admin for his password", async () => {
	expect((await logIn("plain", "elsewhere")).said).toBe(`28000 no [[hba]] entry ${words("plain", "elsewhere")}`);
	expect(await logIn("plain", "admin", "admin", "no")).toEqual({ asked: 10, said: wrong("admin", "admin") });
	expect(await logIn("plain", "admin", "admin", "of the admin")).toEqual({ asked: 10, said: "in" });
	expect((await logIn("socket", "admin", "admin", "of the admin")).said).toContain(
		'no [[hba]] entry for host "[local]"',
	);
});

test("with tls_client_required nobody comes as far as the list without TLS, but by the socket", async () => {
	const hba = [entry("local", "all", "all", "trust"), entry("host", "all", "all", "trust")];
	await using strict = await startProxy({
		config: configuration(hba, { tls_client_required: true }),
		users: [{ name: "ann", database: "pgdog", password: "pw", tls_client_certificate_required: false, ...SERVER }],
	});
	const said = async (way: Way) => (await logIn(way, "pgdog", "ann", "", strict)).said;
	expect(await said("plain")).toBe("08004 only TLS connections are allowed");
	expect([await said("tls"), await said("socket")]).toEqual(["in", "in"]);
});

test("a client that comes by IPv4 to a socket of IPv6 meets entries of IPv4", async () => {
	const hba = [entry("host", "all", "all", "reject", "::/0"), entry("host", "all", "all", "trust", "127.0.0.0/8")];
	// Where there is no IPv6, as in some containers, there is only the one way.
	const hasSix = Object.values(networkInterfaces()).some((all) => all?.some(({ address }) => address === "::1"));
	await using both = await startProxy({
		config: configuration(hba, { host: hasSix ? "::" : "127.0.0.1" }),
		users: [{ name: "ann", database: "pgdog", password: "pw", ...SERVER }],
	});
	expect(await logIn("plain", "pgdog", "ann", "", both)).toEqual({ asked: 0, said: "in" });
	if (!hasSix) return;
	await using six = await RawClient.open({ host: "::1", port: both.port });
	const refused = await six.login({ user: "ann", database: "pgdog" }).then(
		() => "in",
		({ fields }: LoginError) => fields.M,
	);
	expect(refused).toContain('[[hba]] rejects connection for host "::1"');
});

test("users whom a server knows are asked as their entry says, and of those whom the list refuses nobody is asked", async () => {
	const set = "SET password_encryption = md5; CREATE ROLE fiver LOGIN PASSWORD 'five'; RESET password_encryption";
	for (const sql of [
		"CREATE ROLE asker LOGIN SUPERUSER PASSWORD 'asks'",
		"CREATE ROLE scrammer LOGIN PASSWORD 'scram'",
		"CREATE TABLE asked (name text)",
		`CREATE FUNCTION secret_of(who text, OUT name text, OUT secret text) RETURNS SETOF record LANGUAGE plpgsql AS $$
		 BEGIN
		   INSERT INTO public.asked VALUES (who);
		   RETURN QUERY SELECT rolname::text, rolpassword::text FROM pg_authid WHERE rolname = who;
		 END $$`,
		set,
	])
		await cluster.primary.sql(sql);
	const asker = {
		auth_query_user: "asker",
		auth_query_password: "asks",
		auth_query: "SELECT * FROM public.secret_of($1)",
	};
	const hba = [
		entry("host", "all", "refused,ghost", "reject"),
		entry("host", "pgdog", "all", "md5"),
		entry("host", "both", "all", "scram-sha-256"),
	];
	await using learning = await startProxy({ config: configuration(hba, asker), users: [] });
	const by = (database: string, user: string, password: string) => logIn("plain", database, user, password, learning);
	expect(await by("pgdog", "scrammer", "scram")).toEqual({ asked: 10, said: "in" });
	expect(await by("pgdog", "fiver", "five")).toEqual({ asked: 5, said: "in" });
	expect(await by("pgdog", "nobody", "five")).toEqual({ asked: 5, said: wrong("pgdog", "nobody") });
	expect(await by("both", "scrammer", "scram")).toEqual({ asked: 10, said: "in" });
	expect(await by("both", "fiver", "five")).toEqual({ asked: 10, said: wrong("both", "fiver") });
	await learning.waitForLog(/client "scrammer" connected .*, auth: scram\]/);
	await learning.waitForLog(/client "fiver" connected .*, auth: md5\]/);
	await learning.waitForLog(/method scram-sha-256 cannot check an MD5 hash \(.*pgdog\.toml:\d+: hba\[2\]\)/);
	for (const user of ["refused", "ghost"]) expect((await by("pgdog", user, "x")).said).toContain("rejects");
	expect((await by("elsewhere", "scrammer", "scram")).said).toContain("no [[hba]] entry");
	const names = (await cluster.primary.sql("SELECT DISTINCT name FROM asked ORDER BY 1")) as { name: string }[];
	expect(names.map(({ name }) => name)).toEqual(["fiver", "nobody", "scrammer"]);
});

test("whose password a server judges is asked for it in clear text by every method that asks, and by trust, too", async () => {
	const hba = [
		entry("host", "pgdog", "ghost", "reject"),
		entry("host", "pgdog", "all", "scram-sha-256"),
		entry("host", "both", "all", "trust"),
		entry("hostssl", "elsewhere", "all", "cert"),
	];
	const general = { passthrough_auth: "enabled_plain" };
	await using passing = await startProxy({
		config: configuration(hba, general),
		users: [{ name: "ann", database: "pgdog", password: "pw", ...SERVER }],
	});
	const by = (database: string, user: string, password: string, way: Way = "plain") =>
		logIn(way, database, user, password, passing);
	for (const database of ["pgdog", "both"]) {
		expect(await by(database, "pgdog", "pgdog")).toEqual({ asked: 3, said: "in" });
		expect(await by(database, "pgdog", "wrong")).toEqual({ asked: 3, said: wrong(database, "pgdog") });
	}
	expect(await by("pgdog", "ann", "pw")).toEqual({ asked: 10, said: "in" });
	expect(await by("pgdog", "ghost", "pw")).toMatchObject({ asked: null });
	expect(await by("elsewhere", "ann", "pw", "tls with a certificate")).toMatchObject({ asked: null });
});

test("a reload changes who may log in, not who has; a bad list, or none, changes nothing and says why", async () => {
	const start = [entry("host", "all", "all", "trust")];
	const users = [{ name: "ann", database: "pgdog", password: "pw", ...SERVER }];
	await using reloading = await startProxy({ config: configuration(start), users });
	await using console = await admin(reloading, "of the admin");
	await using client = await connect(reloading, { user: "ann", password: "" });
	const said = () => logIn("plain", "pgdog", "ann", "pw", reloading);
	expect(await said()).toEqual({ asked: 0, said: "in" });

	const refused = async () => JSON.stringify((await console.query("RELOAD")).errors).replaceAll("\\", "");
	reloading.writeConfig(configuration([entry("host", "all", "+staff", "trust")]));
	expect(await refused()).toContain('hba[0].user = "+staff": accepted is names');
	reloading.writeConfig(configuration([]));
	expect(await refused()).toContain("no [[hba]] would be left");
	expect(await said()).toEqual({ asked: 0, said: "in" });

	reloading.writeConfig(configuration([entry("host", "all", "all", "md5")]));
	const { notices, errors } = await console.query("RELOAD");
	expect(errors).toEqual([]);
	expect(notices.map(({ M }) => M)).toContain("reload: [[hba]] read anew: log-ins from now on meet it");
	// Each worker puts it in force when it hears of it.
	await until(async () => (await said()).asked === 5 && (await said()).asked === 5, "the new list");
	expect(await said()).toEqual({ asked: 5, said: "in" });
	reloading.writeConfig(configuration([entry("host", "admin", "all", "md5")]));
	expect((await console.query("RELOAD")).errors).toEqual([]);
	await until(async () => (await said()).said.includes("no [[hba]] entry"), "the new list");
	expect(await one(client, "SELECT current_user")).toBe("pgdog");

	reloading.writeConfig(configuration([]));
	expect((await console.query("RELOAD FORCE")).errors).toEqual([]);
	await until(async () => (await said()).asked === 10, "auth_type");
});

test("who is in the middle of it when a reload comes gets in by no mixture of both: not by a list, nor an authority, of before", async () => {
	using others = await Authority.create("Somebody else");
	const before = configuration([entry("hostssl", "all", "all", "password")]);
	const after = (hba: object[]) => configuration(hba, { tls_client_ca_certificate: others.path });
	const users = [{ name: "ann", database: "pgdog", password: "pw", ...SERVER }];
	await using reloading = await startProxy({ config: before, users });
	await using console = await RawClient.open({ port: reloading.port });
	await console.requestTls(certificate());
	await console.login({ user: "admin", database: "admin", password: "of the admin" });

	const open = async () => {
		const client = await RawClient.open({ port: reloading.port });
		await client.requestTls(certificate());
		return client;
	};
	await using secured = await open();
	await using asked = await open();
	asked.send(frontend.startupMessage({ user: "ann", database: "pgdog" }));
	expect((await asked.next()).code).toBe("R");
	reloading.writeConfig(after([entry("hostssl", "all", "all", "cert")]));
	expect((await console.query("RELOAD")).errors).toEqual([]);

	const outcome = async (client: RawClient) => {
		const { code, body } = await client.next();
		return code === "E" ? errorFields(body).C : code;
	};
	asked.send(frontend.passwordMessage("pw"));
	expect(await outcome(asked)).toBe("57P03");
	// Neither of both files lets it in by that certificate alone.
	secured.send(frontend.startupMessage({ user: "ann", database: "pgdog" }));
	expect(await outcome(secured)).toBe("57P03");
});

test("configcheck --login prints the entry that a log-in would meet, and exits with 3 where it is refused", async () => {
	const check = async (login: string) => {
		const files = ["--config", proxy.configPath, "--users", proxy.usersPath];
		const { code, stdout } = await runTool([...proxyCommand(), ...files, "configcheck", "--login", login]);
		return `${code} ${stdout.trim().replace(`${proxy.folder}/`, "")}`;
	};
	expect(await check("user=ann,database=hostssl_md5,address=10.0.0.7,tls")).toMatch(
		/^0 pgdog\.toml:\d+: hba\[\d+\]: hostssl hostssl_md5 all all md5$/,
	);
	expect(await check("user=ann,database=local_reject,address=local")).toMatch(
		/^3 pgdog\.toml:.*: local local_reject all reject$/,
	);
	expect(await check("user=ann,database=hostssl_md5,address=::1")).toBe(
		'3 no [[hba]] entry for host "::1", user "ann", database "hostssl_md5", no encryption',
	);
	expect(await check("user=ann")).toBe("2 ");
});
