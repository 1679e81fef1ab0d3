// `npm run drivers`: TLS between the proxy and drivers of other languages, psycopg (by libpq), pgx and JDBC: each sslmode ×
// channel_binding × sslnegotiation, with and without certificates of clients, against what has to come of it. Fetches the drivers
// into .cache/drivers and says which it cannot run. Exits 1 when something else came of a case, or no driver could be run; not part
// of `npm test` nor of CI.
//
//   bun scripts/drivers.ts [--only psycopg|pgx|JDBC]

import { parseArgs } from "node:util";
import { Authority, type Pair } from "../test/support/certificates.ts";
import { type Cluster, startPostgres } from "../test/support/postgres.ts";
import { type Proxy, simpleConfig, startProxy } from "../test/support/proxy.ts";
import {
	BINDINGS,
	CASES,
	type Case,
	expected,
	MODES,
	NEGOTIATIONS,
	outcomeOf,
	PLACES,
	type Place,
	type Ways,
} from "./drivers/cases.ts";
import { DRIVERS, type Driver, installed } from "./drivers/installed.ts";

const { values } = parseArgs({ options: { only: { type: "string" } } });
const wanted = DRIVERS.filter(({ name }) => values.only === undefined || values.only === name);
if (wanted.length === 0)
	throw new Error(`--only ${values.only}: there are ${DRIVERS.map(({ name }) => name).join(", ")}`);

/** What a client has of certificates. */
interface Papers {
	readonly authority: Authority;
	readonly client: Pair;
	/** The client's key as JDBC reads it. */
	readonly der: string;
}

async function papersOf(authority: Authority): Promise<Papers> {
	const client = await authority.issue({ name: "alice" });
	const der = authority.write("client.pk8", Buffer.from(client.keyPem.replace(/-----.*-----|\s/g, ""), "base64"));
	return { authority, client, der };
}

/** The words of a case, as libpq would have them but for the names that the driver has of its own. */
function wordsOf({ place, mode, binding, negotiation }: Case, { port }: Proxy, papers: Papers, driver: Driver): string {
	const { authority, client, der } = papers;
	const shows = place.startsWith("certificate");
	const user = place === "certificate only" ? "alice" : "pgdog";
	const words = Object.entries({
		...{ host: "localhost", port, dbname: "pgdog", user },
		...(user === "pgdog" ? { password: "pgdog" } : {}),
		...{ sslmode: mode, channel_binding: binding, sslnegotiation: negotiation },
		...(mode.startsWith("verify") ? { sslrootcert: authority.path } : {}),
		...(shows ? { sslcert: client.certificate, sslkey: driver.key === "der" ? der : client.key } : {}),
	});
	return words.map(([name, value]) => `${driver.words[name] ?? name}=${value}`).join("\t");
}

/** What the driver says of each case, and of itself. */
async function drive(
	{ command, env }: { readonly command: string[]; readonly env: Record<string, string> },
	lines: string[],
): Promise<{ readonly version: string; readonly said: string[] }> {
	const child = Bun.spawn(command, {
		stdin: Buffer.from(`${lines.map((words, i) => `${i}\t${words}`).join("\n")}\n`),
		stdout: "pipe",
		stderr: "inherit",
		env: { PATH: process.env.PATH ?? "/usr/bin:/bin", HOME: process.env.HOME ?? "/", LC_ALL: "C", ...env },
	});
	const said: string[] = [];
	let version = "";
	for (const line of (await child.stdout.text()).split("\n")) {
		const [at = "", words = ""] = line.split("\t");
		if (at === "version") version = words;
		else if (at !== "") said[Number(at)] = words;
	}
	return { version, said: lines.map((_, i) => said[i] ?? "nothing was said") };
}

/** @returns how many cases came to something else */
function report(version: string, said: string[], ways: Ways, log: string): number {
	const places = Object.keys(PLACES) as Place[];
	const wrong: string[] = [];
	console.log(`\n${version}\n`);
	console.log(`| sslmode, channel_binding, sslnegotiation | ${places.join(" | ")} |`);
	console.log(`| --- | ${places.map(() => "---").join(" | ")} |`);
	for (const mode of MODES)
		for (const negotiation of NEGOTIATIONS)
			for (const binding of BINDINGS) {
				const row = CASES.flatMap((each, i) =>
					each.mode === mode && each.negotiation === negotiation && each.binding === binding ? [i] : [],
				);
				const cells = row.map((i) => {
					const outcome = outcomeOf(said[i]!);
					const due = expected(CASES[i]!, ways);
					if (outcome === due) return outcome;
					const name = `${mode}, ${binding}, ${negotiation}, ${CASES[i]!.place}`;
					wrong.push(`${name}: ${said[i]} (has to be ${due})`);
					return `**${outcome}**`;
				});
				console.log(`| ${mode}, ${binding}, ${negotiation} | ${cells.join(" | ")} |`);
			}
	const reasons = said.filter((words) => outcomeOf(words) === "refused").map((words) => words.replace(/\d{3,}/g, "…"));
	console.log(`\nrefused with:\n${[...new Set(reasons)].map((words) => `  ${words}\n`).join("")}`);
	for (const line of wrong) console.log(`  not as expected: ${line}`);
	if (log.includes("internal error")) wrong.push("the proxy's log has internal errors");
	return wrong.length;
}

/** The proxies of the places, by place. */
async function startProxies(cluster: Cluster, authority: Authority): Promise<Record<Place, Proxy>> {
	const stranger = await Authority.create("Somebody else");
	const names = { name: "localhost", dns: ["localhost"], ips: ["127.0.0.1"] };
	const [own, elsewhere, forged] = await Promise.all([
		authority.issue(names),
		authority.issue({ name: "elsewhere", dns: ["elsewhere.example"] }),
		stranger.issue(names),
	]);
	const start = (pair: Pair | null, general: Record<string, unknown> = {}) => {
		const files = pair === null ? {} : { tls_certificate: pair.certificate, tls_private_key: pair.key };
		const { config, users } = simpleConfig(cluster.primary, { ...files, ...general });
		const identified = {
			name: "alice",
			database: "pgdog",
			identity: "alice",
			server_user: "pgdog",
			server_password: "pgdog",
		};
		const all = general.tls_client_ca_certificate === undefined ? users : [...(users as object[]), identified];
		return startProxy({ config, users: all as typeof users });
	};
	const required = { tls_client_required: true };
	const [none, offered, strict, wrongHost, unknown, mutual] = await Promise.all([
		start(null),
		start(own),
		start(own, required),
		start(elsewhere),
		start(forged),
		start(own, { ...required, tls_client_ca_certificate: authority.path }),
	]);
	stranger[Symbol.dispose]();
	return {
		"no TLS": none,
		TLS: offered,
		"TLS required": strict,
		"wrong host": wrongHost,
		"wrong authority": unknown,
		"no certificate": mutual,
		"certificate, password": mutual,
		"certificate only": mutual,
	};
}

await using cluster = await startPostgres();
using authority = await Authority.create();
const papers = await papersOf(authority);
const proxies = await startProxies(cluster, authority);
let [failures, ran] = [0, 0];
for (const driver of wanted) {
	const probe = await installed(driver);
	if (typeof probe === "string") {
		console.log(`\n${driver.name} cannot be run: ${probe}`);
		continue;
	}
	const began = Object.values(proxies).map(({ log }) => log.length);
	const { version, said } = await drive(
		probe,
		CASES.map((each) => wordsOf(each, proxies[each.place], papers, driver)),
	);
	ran++;
	failures += report(
		version,
		said,
		driver.ways,
		Object.values(proxies)
			.map(({ log }, i) => log.slice(began[i]))
			.join(""),
	);
}
await Promise.all([...new Set(Object.values(proxies))].map((proxy) => proxy.stop()));
console.log(`\n${ran} of ${wanted.length} drivers were run, ${CASES.length} cases each; ${failures} not as expected`);
process.exitCode = failures > 0 || ran === 0 ? 1 : 0;
