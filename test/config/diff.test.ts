import { afterAll, expect, test } from "bun:test";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { diff, settingChangeText, updateOf } from "../../src/config/diff.ts";
import { load } from "../../src/config/load.ts";
import { showConfig } from "../../src/config/show.ts";
import type { Snapshot } from "../../src/config/snapshot.ts";

const folder = mkdtempSync(join(tmpdir(), "pgdog-diff-"));
afterAll(() => rmSync(folder, { recursive: true }));

function snapshot(general: string, databases: string[] = ["a"], password = "pw", more = ""): Snapshot {
	const [configPath, usersPath] = [join(folder, "pgdog.toml"), join(folder, "users.toml")];
	const entries = databases.map((name) => `[[databases]]\nname = "${name}"\nhost = "h"\n`);
	writeFileSync(configPath, `[general]\n${general}\n${entries.join("")}${more}`);
	writeFileSync(usersPath, `[[users]]\nname = "u"\nall_databases = true\npassword = "${password}"`);
	const input = { configPath, usersPath, databaseUrls: [], overrides: {}, env: { PGDOG_ADMIN_PASSWORD: "x" } };
	const loaded = load(input);
	if (!loaded.ok) throw new Error("bad test");
	return loaded.snapshot;
}

test("the same files twice are no difference", () => {
	const difference = diff(snapshot("port = 1"), snapshot("port = 1"));
	const none = { added: [], removed: [], changed: [] };
	expect(difference).toMatchObject({ settings: [], pools: none, clusters: none });
	expect([difference.adminChanged, difference.pluginsChanged, difference.writeFunctionsChanged]).toEqual([
		false,
		false,
		false,
	]);
});

test("settings are listed with old and new, and those that need a restart keep the old value", () => {
	const before = snapshot("port = 1\nquery_timeout = 1500");
	const { settings, next } = diff(before, snapshot("port = 2\ncheckout_timeout = 120_000"));
	expect(settings).toEqual([
		{ table: "general", name: "port", before: "1", after: "2", reloadable: false },
		{ table: "general", name: "query_timeout", before: "1500ms", after: "disabled", reloadable: true },
		{ table: "general", name: "checkout_timeout", before: "5s", after: "2m", reloadable: true },
	]);
	expect(settings.map(settingChangeText)[0]).toBe("port: 1 -> 2 (takes effect after a restart)");
	expect(next.general).toMatchObject({ port: 1, checkout_timeout: 120_000 });
	// The next reload with the old file must find nothing changed but what did take effect.
	expect(diff(next, before).settings.map(({ name }) => name)).toEqual(["query_timeout", "checkout_timeout"]);
});

test("pools are added, removed and changed by their key", () => {
	const { pools, clusters } = diff(snapshot("", ["a", "b"]), snapshot("default_pool_size = 3", ["b", "c"]));
	expect(pools.added.map(({ key }) => key)).toEqual(["u@c/0/primary/h:5432"]);
	expect(pools.removed.map(({ key }) => key)).toEqual(["u@a/0/primary/h:5432"]);
	expect(pools.changed.map(({ before, after }) => [after.key, before.pool_size, after.pool_size])).toEqual([
		["u@b/0/primary/h:5432", 10, 3],
	]);
	expect(clusters.changed.map(({ after }) => after.database)).toEqual(["b"]);
});

test("a replica that comes is a pool of its own, and the cluster a changed one", () => {
	const { pools, clusters } = diff(snapshot(""), snapshot("", ["a", 'a"\nrole = "replica']));
	expect(pools.added.map(({ key }) => key)).toEqual(["u@a/0/replica/h:5432"]);
	expect([pools.removed, pools.changed, clusters.changed.length]).toEqual([[], [], 1]);
});

test("other plugins are noticed at each reload, and wait for a restart", () => {
	const before = snapshot("");
	const after = { ...before, plugins: [{ name: "p", required: false }] };
	const { pluginsChanged, next } = diff(before, after);
	expect([pluginsChanged, next.plugins]).toEqual([true, []]);
	expect(diff(next, after).pluginsChanged).toBe(true);
	expect(diff(next, before).pluginsChanged).toBe(false);
});

test("how reads go is changed by a reload, the HTTP port by a restart", () => {
	const general =
		'read_write_split = "exclude_primary"\nban_timeout = 0\nread_after_write = "lsn"\nlsn_check_interval = 100';
	const { settings, pools, next } = diff(snapshot(""), snapshot(`${general}\nhealthcheck_port = 8080`));
	expect(settings.map(settingChangeText)).toEqual([
		"healthcheck_port: default -> 8080 (takes effect after a restart)",
		"ban_timeout: 5m -> 0",
		"read_write_split: include_primary -> exclude_primary",
		"lsn_check_interval: 5s -> 100ms",
		"read_after_write: off -> lsn",
	]);
	expect(pools.changed).toEqual([]);
	const taken = { read_write_split: "exclude_primary", ban_timeout: 0, healthcheck_port: undefined };
	expect(next.general).toMatchObject(taken);
});

test("another weight changes a pool, another role makes it another pool", () => {
	const weight = diff(snapshot(""), snapshot("", ['a"\nlb_weight = 3\nrole = "primary'])).pools;
	expect(weight.changed.map(({ after }) => after.lb_weight)).toEqual([3]);
	const role = diff(snapshot(""), snapshot("", ['a"\nrole = "auto'])).pools;
	expect([role.added, role.removed].map((all) => all.map(({ key }) => key))).toEqual([
		["u@a/0/auto/h:5432"],
		["u@a/0/primary/h:5432"],
	]);
});

test("a database that becomes read only changes its cluster", () => {
	const { clusters } = diff(snapshot(""), snapshot("", ['a"\nread_only = true\nrole = "primary']));
	expect(clusters.changed.map(({ before, after }) => [before.readOnly, after.readOnly])).toEqual([[false, true]]);
});

test("what is sharded otherwise changes the clusters of its database, and no pool", () => {
	const sharded = (more: string) => snapshot("", ["a", "b"], "pw", `[[sharded_tables]]\ndatabase = "a"\n${more}\n`);
	const { clusters, pools, shardingChanged } = diff(sharded('column = "id"'), sharded('column = "key"'));
	expect(shardingChanged).toEqual(["a"]);
	expect(clusters.changed.map(({ after }) => [after.database, after.sharding?.tables[0]?.column])).toEqual([
		["a", "key"],
	]);
	expect(pools.changed).toEqual([]);
	expect(diff(snapshot("", ["a", "b"]), sharded('column = "id"')).shardingChanged).toEqual(["a"]);
	expect(diff(sharded('column = "id"'), sharded('column = "id"')).shardingChanged).toEqual([]);
});

test("another list of who may log in goes to the workers, and one that has not changed does not", () => {
	const entry = (method: string) => `[[hba]]\ntype = "local"\ndatabase = "all"\nuser = "all"\nmethod = "${method}"\n`;
	const having = (text: string) => snapshot("", ["a"], "pw", text);
	const changed = diff(having(entry("md5")), having(entry("reject") + entry("md5")));
	expect(changed.hbaChanged).toBe(true);
	expect(updateOf(changed).hba?.map(({ method }) => method)).toEqual(["reject", "md5"]);
	const same = diff(having(entry("md5")), having(entry("md5")));
	expect([same.hbaChanged, updateOf(same).hba]).toEqual([false, null]);
});

test("other functions that write are noticed and taken at once, whatever their order", () => {
	const functions = (...names: string[]) =>
		snapshot("", ["a"], "pw", names.map((name) => `[[write_functions]]\nname = "${name}"\n`).join(""));
	const { writeFunctionsChanged, next } = diff(functions("a", "b"), functions("b", "c"));
	expect([writeFunctionsChanged, next.writeFunctions]).toEqual([true, ["b", "c"]]);
	expect(diff(functions("a", "b"), functions("B", "A")).writeFunctionsChanged).toBe(false);
});

test("a new password changes the cluster and its pool", () => {
	const { pools, clusters } = diff(snapshot(""), snapshot("", ["a"], "other"));
	expect([pools.changed.length, clusters.changed.length]).toEqual([1, 1]);
});

test("SHOW CONFIG has a row for each setting, sorted, durations for people and nothing as default", () => {
	const rows = showConfig(snapshot("checkout_timeout = 90_000"));
	const values = Object.fromEntries(rows.map(({ name, value }) => [name, value]));
	expect(values).toMatchObject({
		checkout_timeout: "90s",
		server_lifetime: "1d",
		query_timeout: "disabled",
		query_size_limit: "default",
		port: "6432",
		connect_attempt_delay: "0",
		log_connections: "true",
		tcp_keepalive: "true",
		tcp_time: "default",
	});
	expect(rows.map(({ name }) => name)).toEqual(rows.map(({ name }) => name).toSorted());
});
