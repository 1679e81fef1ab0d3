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
	return lost;
}
