import { expect, test } from "bun:test";
import { renderConfigDocs } from "../../scripts/config-docs.ts";
import { judge } from "../../src/config/judge.ts";
import type { Settings } from "../../src/config/setting.ts";
import * as settings from "../../src/config/settings.ts";
import * as sharded from "../../src/config/sharded.ts";
import * as unserved from "../../src/config/unserved.ts";

const tables: [string, Settings, unserved.Unserved][] = [
	["general", settings.general, unserved.unservedGeneral],
	["tcp", settings.tcp, unserved.unservedTcp],
	["admin", settings.admin, unserved.unservedAdmin],
	["databases", settings.database, unserved.unservedDatabase],
	["users", settings.user, unserved.unservedUser],
	["plugins", settings.plugin, unserved.unservedPlugin],
	["write_functions", settings.writeFunction, unserved.unservedWriteFunction],
	["sharded_tables", sharded.shardedTable, unserved.unservedShardedTable],
	["sharded_tables.mapping", sharded.mappingRule, unserved.NOTHING_UNSERVED],
	["sharded_mappings", sharded.shardedMapping, unserved.NOTHING_UNSERVED],
	["sharded_schemas", sharded.shardedSchema, unserved.NOTHING_UNSERVED],
	["omnisharded_tables", sharded.omnishardedTables, unserved.NOTHING_UNSERVED],
];

test("docs/config.md is what scripts/config-docs.ts makes of the table", async () => {
	const committed = await Bun.file(new URL("../../docs/config.md", import.meta.url)).text();
	expect(committed === renderConfigDocs() ? "fresh" : "stale: run `bun scripts/config-docs.ts`").toBe("fresh");
});

test.each(tables)("each setting of %s has one line of text that ends as a sentence", (_, table) => {
	for (const [name, { text, accepted }] of Object.entries(table)) {
		expect([name, text.length > 10 && text.endsWith(".") && !text.includes("\n")]).toEqual([name, true]);
		expect([name, accepted !== ""]).toEqual([name, true]);
	}
});

test.each(tables)("no key of %s is both served and not, or twice in a list", (_, table, { refused, ignored }) => {
	const served = Object.entries(table).flatMap(([name, { aliases }]) => [name, ...aliases]);
	const all = [...served, ...Object.keys(refused), ...ignored];
	expect(all.filter((key, index) => all.indexOf(key) !== index)).toEqual([]);
});

test("each default is a value that its own setting accepts", () => {
	for (const [, table] of tables) {
		for (const [name, setting] of Object.entries(table)) {
			if (setting.required || setting.default === undefined) continue;
			const value = typeof setting.default === "number" ? BigInt(setting.default) : setting.default;
			const result = judge(setting, value);
			expect([name, result.data]).toEqual([name, setting.default]);
		}
	}
});
