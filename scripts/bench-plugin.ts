// What a Rust plugin costs per statement, without sockets: the crossing alone, a walk with a parameter, a text seen for the
// first time. Run: bun scripts/bench-plugin.ts   (builds the bridge and the plugins of test/plugin/fixtures with cargo)

import { readFileSync } from "node:fs";
import { join } from "node:path";
import { PluginHost, type RouteInput } from "../src/plugin/host.ts";
import { bind, bridge, buildFixture, copy, folder, forge, input, Lines, load } from "../test/plugin/support.ts";

const native = bridge();
const mine = buildFixture("witness");
const log = new Lines(false);
const place = folder();
const idle = forge(join(place, "libidle.so"), { rustc: native.rustc, pgQuery: native.pgQuery });

const host = (...files: string[]) => new PluginHost(load(native, files), { log });

/** Nanoseconds per call of `work`, the best of five rounds. */
function nanoseconds(count: number, work: (i: number) => void): number {
	let best = Number.POSITIVE_INFINITY;
	for (let round = 0; round < 5; round++) {
		const started = Bun.nanoseconds();
		for (let i = 0; i < count; i++) work(round * count + i);
		best = Math.min(best, (Bun.nanoseconds() - started) / count);
	}
	return best;
}

function report(name: string, each: number): void {
	console.log(`${name.padEnd(68)}${each < 10_000 ? `${each.toFixed(0)} ns` : `${(each / 1000).toFixed(1)} µs`}`);
}

const COUNT = 300_000;
const SHORT = "SELECT * FROM users WHERE id = $1";
const hello = bind([0], ["hello"]);
const ask = (asked: PluginHost, given: RouteInput) => nanoseconds(COUNT, () => void asked.route(given));

console.log(`${native.rustc}, pg_query ${native.pgQuery}, Bun ${Bun.version}`);
report("no plugin", ask(new PluginHost(load(native, []), { log }), input(SHORT)));
report("unknown at once, no parameters", ask(host(idle), input(SHORT)));
report("unknown at once, one parameter", ask(host(idle), input(SHORT, hello)));
report(
	"walk and a parameter: SELECT 'walk' FROM users WHERE id = $1",
	ask(host(mine), input("SELECT 'walk' FROM users WHERE id = $1", hello)),
);
report(
	"the same, 100 parameters",
	ask(host(mine), input("SELECT 'walk' FROM users WHERE id = $1", bind([0], Array(100).fill("hello")))),
);
const megabytes = bind([1], [Buffer.alloc(8_000_000)]);
report("the same, one parameter of 8 MB", ask(host(mine), input("SELECT 'walk' FROM users WHERE id = $1", megabytes)));
report(
	"three plugins, each unknown at once",
	ask(host(idle, copy(idle, join(place, "lib2.so")), copy(idle, join(place, "lib3.so"))), input(SHORT, hello)),
);

const fresh = new PluginHost(load(native, [idle]), { log });
const JOIN =
	"SELECT o.id, o.total, u.name FROM orders o JOIN users u ON u.id = o.user_id LEFT JOIN items i ON i.order_id = o.id " +
	"WHERE o.created_at > now() - interval '7 days' AND u.country IN ('de', 'fr', 'it') ORDER BY o.total DESC LIMIT 50 OFFSET ";
report(
	"new text each time: SELECT * FROM users WHERE id = <n>",
	nanoseconds(50_000, (i) => void fresh.route(input(`SELECT * FROM users WHERE id = ${i}`))),
);
report(
	"new text each time: a join of three tables",
	nanoseconds(20_000, (i) => void fresh.route(input(JOIN + i))),
);
const rows = Array.from({ length: 105 }, (_, i) => `(${i}, 'name ${i}', 'user${i}@example.com', now())`).join(", ");
report(
	"new text each time: INSERT of 105 rows",
	nanoseconds(2_000, (i) => void fresh.route(input(`INSERT INTO users VALUES ${rows}, (${i})`))),
);
if (process.platform === "linux") console.log(/VmRSS:.*/.exec(readFileSync("/proc/self/status", "utf8"))?.[0]);
