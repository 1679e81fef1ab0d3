// Settings as text: for SHOW CONFIG, for the log of a reload and for docs/config.md. Shows no secret: `[general]` and
// `[tcp]` hold none.

import { MAX, type Setting, type Settings } from "./setting.ts";
import { general, tcp } from "./settings.ts";
import type { Snapshot } from "./snapshot.ts";

const units: readonly [ms: number, unit: string][] = [
	[86_400_000, "d"],
	[3_600_000, "h"],
	[60_000, "m"],
	[1_000, "s"],
];

/** A value as SHOW CONFIG prints it: durations with the largest unit that leaves no fraction, nothing as `default`. */
export function showValue(setting: Setting<unknown>, value: unknown): string {
	if (setting.secret) return "***";
	if (value === undefined) return "default";
	if (value === MAX) return "disabled";
	if (setting.type !== "milliseconds" || typeof value !== "number" || value === 0) return String(value);
	const [ms, unit] = units.find(([each]) => value % each === 0) ?? [1, "ms"];
	return `${value / ms}${unit}`;
}

export interface Shown {
	readonly name: string;
	readonly value: string;
	readonly byDefault: string;
	/** Whether a reload puts a new value to work. */
	readonly reloadable: boolean;
}

/** The rows of SHOW CONFIG: `[general]` under its own names, `[tcp]` behind `tcp_`, sorted by name. */
export function showConfig(snapshot: Pick<Snapshot, "general" | "tcp">): Shown[] {
	const rows = (settings: Settings, values: Readonly<Record<string, unknown>>, prefix: string): Shown[] =>
		Object.entries(settings).map(([name, setting]) => ({
			name: `${prefix}${name}`,
			value: showValue(setting, values[name]),
			byDefault: showValue(setting, setting.default),
			reloadable: setting.reloadable,
		}));
	return [...rows(general, snapshot.general, ""), ...rows(tcp, snapshot.tcp, "tcp_")].toSorted((a, b) =>
		a.name < b.name ? -1 : 1,
	);
}
