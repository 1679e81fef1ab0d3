// What a reload would take away as a whole, so that the caller can ask whether that is meant. A file that is being written,
// an empty one and one of another deployment look like that; nobody who serves clients empties the configuration unsaid.

import type { Snapshot } from "./snapshot.ts";

/** @returns one line for each kind of thing of which there was some and would be none; usually empty */
export function losses(before: Snapshot, after: Snapshot): string[] {
	const files = after.files.length === 0 ? "no file" : after.files.join(" and ");
	const lost: string[] = [];
	if (before.databases.length > 0 && after.databases.length === 0)
		lost.push(`no database would be left: ${files} has none`);
	if (before.users.length > 0 && after.users.length === 0)
		lost.push(`no user would be left: ${files} has none with a password and a database of [[databases]]`);
	if (before.hba.length > 0 && after.hba.length === 0)
		lost.push(`no [[hba]] would be left: clients could log in from everywhere, as auth_type says`);
	const databases = new Set(after.databases.map(({ name }) => name));
	for (const [name, { shards, tables }] of before.sharding) {
		if (tables.length === 0 || !databases.has(name)) continue;
		const now = after.sharding.get(name);
		if (now === undefined || now.tables.length === 0)
			lost.push(
				`no [[sharded_tables]] would be left of database ${JSON.stringify(name)}: its rows would go to all shards`,
			);
		else if (now.shards !== shards && tables.some(({ by }) => by.kind !== "mapping"))
			lost.push(
				`database ${JSON.stringify(name)} would have ${now.shards} shards in place of ${shards}: rows that are there would be looked for on others`,
			);
	}
	return lost;
}
