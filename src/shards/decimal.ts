// Values of `numeric`, exactly, in both formats that PostgreSQL sends them in: for sums of several shards (combine.ts).

/** `units` of ten to the power of minus `scale`; what is no number has neither. */
export interface Decimal {
	readonly kind: "number" | "NaN" | "Infinity" | "-Infinity";
	readonly units: bigint;
	/** Digits behind the point that are shown. */
	readonly scale: number;
}

/** Words of the binary format (numeric.c), beside those of the sign of a number. */
const POSITIVE = 0x0000;
const NEGATIVE = 0x4000;
const SPECIAL: Readonly<Record<Exclude<Decimal["kind"], "number">, number>> = {
	NaN: 0xc000,
	Infinity: 0xd000,
	"-Infinity": 0xf000,
};
const BASE = 10_000n;

/** The value in `chunk[start, end)`. */
export function decimalOf(chunk: Buffer, start: number, end: number, isBinary: boolean): Decimal {
	return isBinary ? ofBinary(chunk, start) : ofText(chunk.latin1Slice(start, end));
}

function ofText(text: string): Decimal {
	if (text === "NaN" || text === "Infinity" || text === "-Infinity") return { kind: text, units: 0n, scale: 0 };
	const point = text.indexOf(".");
	const scale = point < 0 ? 0 : text.length - point - 1;
	return { kind: "number", units: BigInt(text.replace(".", "")), scale };
}

function ofBinary(chunk: Buffer, start: number): Decimal {
	const count = chunk.readUInt16BE(start);
	const weight = chunk.readInt16BE(start + 2);
	const sign = chunk.readUInt16BE(start + 4);
	const scale = chunk.readUInt16BE(start + 6);
	if (sign === SPECIAL.NaN) return { kind: "NaN", units: 0n, scale: 0 };
	if (sign === SPECIAL.Infinity) return { kind: "Infinity", units: 0n, scale: 0 };
	if (sign === SPECIAL["-Infinity"]) return { kind: "-Infinity", units: 0n, scale: 0 };
	let digits = 0n;
	for (let i = 0; i < count; i++) digits = digits * BASE + BigInt(chunk.readUInt16BE(start + 8 + 2 * i));
	// Of the last digit; what is behind the scale is 0.
	const power = 4 * (weight - count + 1) + scale;
	const units = power >= 0 ? digits * 10n ** BigInt(power) : digits / 10n ** BigInt(-power);
	return { kind: "number", units: sign === NEGATIVE ? -units : units, scale };
}

/** As PostgreSQL adds: the sum shows as many digits as either. */
export function add(a: Decimal, b: Decimal): Decimal {
	if (a.kind !== "number" || b.kind !== "number") {
		const kinds = [a.kind, b.kind].filter((kind) => kind !== "number");
		const kind = kinds.every((one) => one === kinds[0]) ? kinds[0]! : "NaN";
		return { kind, units: 0n, scale: 0 };
	}
	const scale = Math.max(a.scale, b.scale);
	return { kind: "number", units: unitsAt(a, scale) + unitsAt(b, scale), scale };
}

function unitsAt({ units, scale }: Decimal, wanted: number): bigint {
	return units * 10n ** BigInt(wanted - scale);
}

export function encoded(value: Decimal, isBinary: boolean): Buffer {
	return isBinary ? binaryOf(value) : Buffer.from(textOf(value));
}

function textOf({ kind, units, scale }: Decimal): string {
	if (kind !== "number") return kind;
	const digits = String(units < 0n ? -units : units).padStart(scale + 1, "0");
	const sign = units < 0n ? "-" : "";
	return scale === 0 ? `${sign}${digits}` : `${sign}${digits.slice(0, -scale)}.${digits.slice(-scale)}`;
}

function binaryOf(value: Decimal): Buffer {
	const { kind, units, scale } = value;
	if (kind !== "number") return words([0, 0, SPECIAL[kind], 0]);
	const behind = Math.ceil(scale / 4);
	const digits: number[] = [];
	for (let rest = unitsAt({ ...value, units: units < 0n ? -units : units }, 4 * behind); rest > 0n; rest /= BASE)
		digits.unshift(Number(rest % BASE));
	const weight = digits.length === 0 ? 0 : digits.length - behind - 1;
	while (digits.at(-1) === 0) digits.pop();
	return words([digits.length, weight, units < 0n ? NEGATIVE : POSITIVE, scale, ...digits]);
}

function words(values: readonly number[]): Buffer {
	const bytes = Buffer.alloc(2 * values.length);
	for (const [i, value] of values.entries()) bytes.writeUInt16BE(value & 0xffff, 2 * i);
	return bytes;
}
