// Shards of vectors, which have no hash: each is with the nearest of some points, its centroid. Vectors are pgvector's, as text
// (`[1, 2.5, 3]`) or binary. Used by columns.ts.

import { ShardChoice } from "./route.ts";

/** What pgvector's `vector_in` takes, but for infinities and NaN, which it refuses after that. */
const NUMBER = /^[+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?$/i;
/** Bytes before the numbers: how many there are, and two that are 0. */
const HEAD = 4;

export class Centroids {
	readonly #points: readonly Float32Array[];
	readonly #probes: number;
	readonly #shards: number;
	/** The vector that was read last. */
	readonly #vector: Float32Array;

	/** @param points at least one, all of one dimension @param probes how many of the nearest points a vector may be with */
	constructor(points: readonly (readonly number[])[], probes: number, shards: number) {
		this.#points = points.map((point) => new Float32Array(point));
		this.#probes = probes;
		this.#shards = shards;
		this.#vector = new Float32Array(this.#points[0]!.length);
	}

	/** False: it is no vector of the centroids' dimension. */
	readText(text: string): boolean {
		const list = /^\s*\[([^\]]*)\]\s*$/.exec(text)?.[1]?.split(",");
		if (list?.length !== this.#vector.length) return false;
		return list.every((each, index) => {
			const number = each.trim();
			this.#vector[index] = Number(number);
			return NUMBER.test(number) && Number.isFinite(this.#vector[index]);
		});
	}

	/** As `readText`. */
	readBinary(bytes: Uint8Array, start: number, end: number): boolean {
		const { length } = this.#vector;
		const view = new DataView(bytes.buffer, bytes.byteOffset + start, end - start);
		if (view.byteLength !== HEAD + 4 * length || view.getUint16(0) !== length) return false;
		for (let i = 0; i < length; i++) {
			this.#vector[i] = view.getFloat32(HEAD + 4 * i);
			if (!Number.isFinite(this.#vector[i])) return false;
		}
		return true;
	}

	/** The shard of all the points that the vector may be with; `ShardChoice.All`: they have several. */
	shard(): number {
		const distances = this.#points.map((point) => this.#distance(point));
		// A stable sort: of two that are as near the first comes first.
		const nearest = distances.map((_, index) => index).sort((a, b) => distances[a]! - distances[b]!);
		const shards = new Set(nearest.slice(0, this.#probes).map((index) => index % this.#shards));
		return shards.size === 1 ? nearest[0]! % this.#shards : ShardChoice.All;
	}

	/** The shard of the nearest point. */
	home(): number {
		let home = 0;
		let least = Number.POSITIVE_INFINITY;
		this.#points.forEach((point, index) => {
			const distance = this.#distance(point);
			if (distance >= least) return;
			home = index;
			least = distance;
		});
		return home % this.#shards;
	}

	/** Squared. */
	#distance(point: Float32Array): number {
		let sum = 0;
		for (let i = 0; i < point.length; i++) {
			const difference = point[i]! - this.#vector[i]!;
			sum += difference * difference;
		}
		return sum;
	}
}
