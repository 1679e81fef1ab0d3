// `[[hba]]` of pgdog.toml: part of the one table (settings.ts), and what its entries have to be. Called by load.ts. What becomes of
// them is in hba.ts. What is PostgreSQL's and cannot be served is refused by name: a line that is never met could let somebody in.

import { networkInterfaces } from "node:os";
import { type HbaEntry, type HbaNames, hbaMethods, hbaTypes, type Network, readNetwork } from "./hba.ts";
import { whyNoPattern } from "./hba-pattern.ts";
import { joinKey } from "./locate.ts";
import { type Findings, placeOf, show, type ValueSource } from "./problem.ts";
import { choice, type Values, words } from "./setting.ts";
import type { General } from "./settings.ts";

const method = choice(hbaMethods, {
	required: true,
	default: "reject",
	text: "`scram-sha-256`, `md5`, `password`: the password is asked for so, as with `auth_type`'s `scram`, `md5` and `plain`; with `md5` a user whose secret is a SCRAM verifier is asked by SCRAM, as by PostgreSQL. `cert` (with `hostssl`): a certificate of the user's `identity`, or else of its name, is enough. `peer` (with `local`; Linux): the operating system's user who comes has to have the user's name, and is asked for nothing; the admin's, too, for the admin database. `trust`: nothing is asked for, but the user must exist and have a password, and the admin database asks for its own whatever is said here. `reject`: nobody gets in.",
});

export const hba = {
	type: choice(hbaTypes, {
		required: true,
		default: "host",
		text: "How the client comes: by the Unix socket (`local`), by TCP (`host`), by TCP with TLS (`hostssl`) or without it (`hostnossl`).",
	}),
	database: words({
		required: true,
		text: "The databases, by the names that clients use: `all`, `sameuser` (of the user's name), names, or regular expressions. The admin database is one of them.",
	}),
	user: words({ required: true, text: "The users: `all`, names, or regular expressions." }),
	address: words({
		text: "Where the client is, with `host`, `hostssl` and `hostnossl` only: `all`, an address, a network (`10.0.0.0/8`, `fd00::/8`), `samehost` (an address of this machine) or `samenet` (of a network that it is in; both as of the last reload). An IPv4 address that comes by way of IPv6 is one of IPv4.",
	}),
	method: { ...method, accepted: `${method.accepted} (PostgreSQL's other methods are not served)` },
};

/** An entry as it stands in the file, with its place there; what is wrong with single values has been reported. */
interface HbaRow {
	readonly at: string;
	readonly values: Partial<Values<typeof hba>>;
}

/** Those that say how clients may come. */
type Ways = Pick<General, "tls_certificate" | "tls_client_ca_certificate" | "tls_client_required" | "unix_socket_dir">;

export function readHba(rows: readonly HbaRow[], general: Ways, source: ValueSource, report: Findings): HbaEntry[] {
	return rows.flatMap(({ at, values }) => {
		const { type, database, user, address, method } = values;
		if (type === undefined || database === undefined || user === undefined || method === undefined) return [];
		const wrong = (key: string, found: string, accepted: string) =>
			report.problem(source, joinKey(at, key), "value", show(found), accepted);
		if (type === "local" && address !== undefined)
			wrong("address", address.join(), 'none with type = "local": the Unix socket has no addresses');
		if (type !== "local" && address === undefined)
			report.problem(source, joinKey(at, "address"), "missing", "", hba.address.accepted);
		if (method === "cert" && type !== "hostssl") wrong("method", method, 'cert with type = "hostssl" only');
		else if (method === "cert" && general.tls_client_ca_certificate === undefined)
			wrong("method", method, "cert together with tls_client_ca_certificate only");
		if (method === "peer" && type !== "local") wrong("method", method, 'peer with type = "local" only');
		const never = whyNever(type, database, general);
		if (never !== null) report.warn(source, at, `${at} is never met: ${never}`);
		return {
			type,
			databases: readNames(database, true, (word, accepted) => wrong("database", word, accepted)),
			users: readNames(user, false, (word, accepted) => wrong("user", word, accepted)),
			networks: readNetworks(address ?? ["all"], (word, accepted) => wrong("address", word, accepted)),
			method,
			place: `${placeOf(source, at)}: ${at}`,
			text: [type, database.join(), user.join(), ...(address === undefined ? [] : [address.join()]), method].join(" "),
		};
	});
}

/** Why no log-in meets an entry, however its names and addresses read; null: one may. */
function whyNever(type: HbaEntry["type"], database: readonly string[], general: Ways): string | null {
	if (type === "local" && general.unix_socket_dir === undefined)
		return "there is no unix_socket_dir (unless systemd passes on a Unix socket)";
	if (type === "hostssl" && general.tls_certificate === undefined) return "there is no tls_certificate";
	if (type === "hostnossl" && general.tls_client_required) return "with tls_client_required all clients have TLS";
	if (database.every((word) => word === "replication")) return "replication connections are not served";
	return null;
}

type Refuse = (word: string, accepted: string) => void;

/** PostgreSQL's words that only a server could tell the meaning of, and what else is read in a name. */
const ELSEWHERE: readonly [pattern: RegExp, accepted: string][] = [
	[/^\+/, "names: who is a member of a role is known to the servers only"],
	[/^@/, "names: no files of names are read"],
	// That is what it means in names of databases elsewhere.
	[/^\*$/, 'all, or "*" in double quotes for that name'],
];

/** In double quotes a word is a name, whatever it means without; but a regular expression is one there, too, as to PostgreSQL. */
function readNames(given: readonly string[], ofDatabases: boolean, refuse: Refuse): HbaNames {
	const names: string[] = [];
	const patterns: string[] = [];
	let [all, sameuser] = [false, false];
	for (const word of given) {
		const quoted = /^"([^"]+)"$/.exec(word)?.[1];
		const elsewhere = ELSEWHERE.find(([pattern]) => pattern.test(word))?.[1];
		const expression = /^\/(.*)$/s.exec(quoted ?? word)?.[1];
		if (elsewhere !== undefined) refuse(word, elsewhere);
		else if (expression !== undefined) {
			const why = whyNoPattern(expression);
			if (why === null) patterns.push(expression);
			else refuse(word, `a regular expression that PostgreSQL and the proxy read alike (docs/logging-in.md), ${why}`);
		} else if (quoted !== undefined) names.push(quoted);
		else if (word.includes('"')) refuse(word, "a name, in double quotes or without any");
		else if (word === "all") all = true;
		else if (ofDatabases && word === "sameuser") sameuser = true;
		else if (ofDatabases && (word === "samerole" || word === "samegroup")) refuse(word, ELSEWHERE[0]![1]);
		else if (!ofDatabases || word !== "replication") names.push(word);
	}
	return { all, sameuser, names, ...(patterns.length > 0 ? { patterns } : {}) };
}

function readNetworks(given: readonly string[], refuse: Refuse): Network[] | null {
	const networks: Network[] = [];
	for (const word of given) {
		const network = readNetwork(word);
		if (network !== null) networks.push(network);
		else if (word === "samehost" || word === "samenet") networks.push(...ownNetworks(word));
		else if (word !== "all")
			refuse(word, "all, samehost, samenet, an address or a network as 10.0.0.0/8; host names are not looked up");
	}
	return given.includes("all") ? null : networks;
}

function ownNetworks(word: "samehost" | "samenet"): Network[] {
	const all = Object.values(networkInterfaces()).flatMap((each) => each ?? []);
	return all.flatMap(({ address, cidr }) => readNetwork(word === "samehost" ? address : (cidr ?? address)) ?? []);
}
