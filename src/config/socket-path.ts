// How long the folder of a Unix socket may be: longer ones are mistakes of the configuration, and not errors of each connection.

import { type Findings, show, type ValueSource } from "./problem.ts";

/** sun_path holds 108 bytes, the last of them a NUL (unix(7)). */
const LONGEST = 107;

/** Reports a folder whose socket would have too long a path. @param key of the setting that names it */
export function checkSocketPath(
	folder: string,
	port: number,
	key: string,
	source: ValueSource,
	report: Findings,
): void {
	if (Buffer.byteLength(`${folder}/.s.PGSQL.${port}`) <= LONGEST) return;
	report.problem(source, key, "value", show(folder), `a folder short enough for a socket path of ${LONGEST} bytes`);
}
