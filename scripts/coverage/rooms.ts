// What a coverage report in lcov's format says of each room.

interface Room {
	/** Lines that were run, and all that could be, of the files that a test loads. */
	run: number;
	lines: number;
	/** Files with code that no test loads. */
	unloaded: string[];
}

export type Rooms = ReadonlyMap<string, Room>;

/** The share of each room's lines that must be run, in percent. */
export type Floors = Readonly<Record<string, number>>;

/** The folder of a path as `src/wire/frame.ts`; undefined for a file beside the rooms. */
function roomOf(file: string): string | undefined {
	const [top, room, rest] = file.split("/");
	return top === "src" && rest !== undefined ? room : undefined;
}

/** @param sources all files of src that have code: those that hold types only are in no report */
export function countRooms(lcov: string, sources: readonly string[]): Rooms {
	const rooms = new Map<string, Room>();
	const roomWith = (file: string) => {
		const name = roomOf(file);
		if (name === undefined) return undefined;
		const room = rooms.get(name) ?? { run: 0, lines: 0, unloaded: [] };
		rooms.set(name, room);
		return room;
	};
	const loaded = new Set<string>();
	for (const record of lcov.split("end_of_record")) {
		const file = /^SF:(.*)$/m.exec(record)?.[1];
		if (file === undefined) continue;
		loaded.add(file);
		const room = roomWith(file);
		if (room === undefined) continue;
		room.run += Number(/^LH:(\d+)$/m.exec(record)?.[1] ?? 0);
		room.lines += Number(/^LF:(\d+)$/m.exec(record)?.[1] ?? 0);
	}
	for (const file of sources) if (!loaded.has(file)) roomWith(file)?.unloaded.push(file);
	return rooms;
}

function percent({ run, lines }: Room): number {
	return lines === 0 ? 0 : (100 * run) / lines;
}

/** What is less than its floor. */
export function below(rooms: Rooms, floors: Floors): string[] {
	const faults: string[] = [];
	for (const [name, room] of rooms) {
		const floor = floors[name] ?? 100;
		if (percent(room) < floor)
			faults.push(`${name}: tests run ${percent(room).toFixed(1)} % of its lines, less than ${floor} %`);
		if (room.unloaded.length > 0) faults.push(`${name}: no test loads ${room.unloaded.join(", ")}`);
	}
	for (const name of Object.keys(floors)) if (!rooms.has(name)) faults.push(`${name}: there is no such room`);
	return faults;
}

export function report(rooms: Rooms, floors: Floors): string {
	const rows = [...rooms]
		.sort(([a], [b]) => a.localeCompare(b))
		.map(([name, room]) => `| ${name} | ${percent(room).toFixed(1)} % | ${floors[name] ?? 100} % |`);
	return ["| room | lines run | floor |", "|---|---:|---:|", ...rows].join("\n");
}
