// Clients that come by the Unix socket. One thread alone can accept there: the main thread, which hands their connections to workers in
// turn.

import type { Socket } from "bun";
import { type Descriptors, Room } from "../net/descriptors.ts";
import { closeDescriptor, descriptor, duplicate } from "../net/options.ts";
import type { Attendance } from "../stats/attendance.ts";
import { turnAway } from "./door.ts";

export class UnixDoor {
	private readonly descriptors: Descriptors;
	private readonly attendance: Attendance;
	private readonly workers: number;
	private readonly hand: (worker: number, fd: number) => boolean;
	private next = 0;

	/** @param hand gives a connection to a worker; false: nobody takes any */
	constructor(
		descriptors: Descriptors,
		attendance: Attendance,
		workers: number,
		hand: (worker: number, fd: number) => boolean,
	) {
		this.descriptors = descriptors;
		this.attendance = attendance;
		this.workers = workers;
		this.hand = hand;
	}

	accept(socket: Socket<undefined>): void {
		this.descriptors.look(0);
		this.descriptors.count();
		if (this.descriptors.roomFor(descriptor(socket), 0) === Room.None) {
			turnAway(socket);
			this.descriptors.free();
			return;
		}
		const fd = duplicate(socket);
		// Nothing has been read: what the client has sent waits in the socket for its worker.
		socket.pause();
		socket.close();
		if (fd >= 0 && this.hand(this.nextLively(), fd)) return;
		closeDescriptor(fd);
		this.descriptors.free();
	}

	/** The worker whose turn it is, stuck ones passed over unless all are. */
	private nextLively(): number {
		for (let tries = 1; tries < this.workers && this.attendance.isStuck(this.next % this.workers); tries++) this.next++;
		return this.next++ % this.workers;
	}
}
