// What is recorded of the proxy, and what it comes to.

import type { Place } from "./instrument.ts";

/** Numbers of places. */
export interface Call {
	place: number;
	/** null: an event of the runtime. */
	caller: number | null;
	/** How many calls it stands within. */
	depth: number;
}

export type ToProxy = "start" | "stop";

export type FromProxy = { type: "recording" } | { type: "recorded"; calls: Call[] };

/** The variable of the environment that names the file of instrumented sources: pairs of a path and its text, in JSON. */
export const INSTRUMENTED = "PGDOG_INSTRUMENTED";

export interface Figures {
	/** Of functions, methods, getters and callbacks in src. */
	calls: number;
	/** Calls of a function in another file than its caller's. */
	files: number;
	/** Calls of a function in another room than its caller's. */
	rooms: number;
}

/** Of all recordings, those of one length that are no accident: on a busy machine a timer is due in several. */
const OFTEN = 1 / 3;

/** The folder of src that a file is in; a file beside the folders is a room of its own. */
function roomOf(file: string): string {
	return file.split("/")[0]!;
}

export function figures(calls: readonly Call[], places: readonly Place[]): Figures {
	const moves = (of: (file: string) => string) =>
		calls.filter(({ place, caller }) => caller !== null && of(places[place]!.file) !== of(places[caller]!.file)).length;
	return { calls: calls.length, files: moves((file) => file), rooms: moves(roomOf) };
}

/** One line for each call, further in than its caller's, with the file where it is not the caller's. */
export function callsText(calls: readonly Call[], places: readonly Place[]): string {
	return calls
		.map(({ place, caller, depth }) => {
			const { file, name } = places[place]!;
			const moved = caller === null || places[caller]!.file !== file;
			return `${"  ".repeat(depth)}${name}${moved ? `  · ${file}` : ""}`;
		})
		.join("\n");
}

/**
 * Of recordings of one request the longest whose length came often enough to be a way of its own: which of two servers is chosen,
 * or answers first, makes a few calls more; a timer that was due makes many, once.
 */
export function longestWay(recordings: readonly Call[][]): Call[] {
	const often = recordings.filter(
		(one) => recordings.filter(({ length }) => length === one.length).length >= OFTEN * recordings.length,
	);
	return often.reduce((longest, one) => (one.length > longest.length ? one : longest), often[0] ?? []);
}
