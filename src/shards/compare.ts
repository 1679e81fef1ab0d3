// How PostgreSQL orders the values of a type, by the bytes that a DataRow has of them, in either format: for rows of several shards
// that are to be in one order (order.ts). What is not here is not known. Text is compared by bytes, which is the order of the
// collation "C"; others are not known.

/** The values `a[aStart, aEnd)` and `b[bStart, bEnd)`, neither NULL. @returns below 0, 0 or above 0, as the first is before the second */
export type Compare = (a: Buffer, aStart: number, aEnd: number, b: Buffer, bStart: number, bEnd: number) => number;

/** A value that is not written as its type is, by the settings that can be read here. */
export class Unreadable extends Error {}

/** Type OIDs, which are the same in every PostgreSQL (pg_type.dat). */
export const enum TypeOid {
	Bool = 16,
	Bytea = 17,
	Name = 19,
	Int8 = 20,
	Int2 = 21,
	Int4 = 23,
	Text = 25,
	Oid = 26,
	Float4 = 700,
	Float8 = 701,
	Bpchar = 1042,
	Varchar = 1043,
	Date = 1082,
	Time = 1083,
	Timestamp = 1114,
	Timestamptz = 1184,
	Numeric = 1700,
	Uuid = 2950,
}

export function isText(oid: number): boolean {
	return oid === TypeOid.Text || oid === TypeOid.Varchar || oid === TypeOid.Bpchar || oid === TypeOid.Name;
}

/** @returns null where the order of the type, or its way to write values, is not known */
export function comparing(oid: number, format: number): Compare | null {
	const binary = format === 1;
	switch (oid) {
		case TypeOid.Bool:
		case TypeOid.Uuid:
		// HH:MM:SS.FFFFFF, without zeros at its end.
		case TypeOid.Text:
		case TypeOid.Varchar:
		case TypeOid.Name:
			return bytewise;
		case TypeOid.Time:
			return binary ? signed : bytewise;
		case TypeOid.Bpchar:
			return unpadded;
		case TypeOid.Bytea:
			return binary ? bytewise : hex;
		case TypeOid.Int2:
		case TypeOid.Int4:
		case TypeOid.Int8:
			return binary ? signed : digits;
		case TypeOid.Oid:
			return binary ? bytewise : digits;
		case TypeOid.Float4:
			return binary ? float4 : floatText;
		case TypeOid.Float8:
			return binary ? float8 : floatText;
		case TypeOid.Date:
		case TypeOid.Timestamp:
			return binary ? signed : timestamp;
		case TypeOid.Timestamptz:
			return binary ? signed : timestamptz;
		case TypeOid.Numeric:
			return binary ? numeric : numericText;
		default:
			return null;
	}
}

/** As memcmp, then the shorter first. */
const bytewise: Compare = (a, aStart, aEnd, b, bStart, bEnd) => {
	const length = Math.min(aEnd - aStart, bEnd - bStart);
	for (let i = 0; i < length; i++) {
		const difference = a[aStart + i]! - b[bStart + i]!;
		if (difference !== 0) return difference;
	}
	return aEnd - aStart - (bEnd - bStart);
};

/** Blanks at the end do not count. */
const unpadded: Compare = (a, aStart, aEnd, b, bStart, bEnd) =>
	bytewise(a, aStart, withoutBlanks(a, aStart, aEnd), b, bStart, withoutBlanks(b, bStart, bEnd));

function withoutBlanks(bytes: Buffer, start: number, end: number): number {
	let at = end;
	while (at > start && bytes[at - 1] === 32) at--;
	return at;
}

/** Integers of one size, big-endian; so are dates and times. */
const signed: Compare = (a, aStart, aEnd, b, bStart, bEnd) => {
	const difference = (a[aStart]! ^ 0x80) - (b[bStart]! ^ 0x80);
	return difference !== 0 ? difference : bytewise(a, aStart, aEnd, b, bStart, bEnd);
};

/** Integers as PostgreSQL writes them: no blanks, no zeros before them. */
const digits: Compare = (a, aStart, aEnd, b, bStart, bEnd) => {
	const aSigned = a[aStart] === MINUS;
	if (aSigned !== (b[bStart] === MINUS)) return aSigned ? -1 : 1;
	const longer = aEnd - aStart - (bEnd - bStart);
	const difference = longer !== 0 ? longer : bytewise(a, aStart, aEnd, b, bStart, bEnd);
	return aSigned ? -difference : difference;
};

const MINUS = 0x2d;
const POINT = 0x2e;

/** NaN is the largest, and like any other NaN. */
function numbers(a: number, b: number): number {
	if (a < b) return -1;
	if (a > b) return 1;
	return a === b ? 0 : Number(Number.isNaN(a)) - Number(Number.isNaN(b));
}

const float4: Compare = (a, aStart, _aEnd, b, bStart) => numbers(a.readFloatBE(aStart), b.readFloatBE(bStart));
const float8: Compare = (a, aStart, _aEnd, b, bStart) => numbers(a.readDoubleBE(aStart), b.readDoubleBE(bStart));
const floatText: Compare = (a, aStart, aEnd, b, bStart, bEnd) =>
	numbers(Number(a.latin1Slice(aStart, aEnd)), Number(b.latin1Slice(bStart, bEnd)));

/** `bytea_output = hex`: what begins with a backslash and an x is never of the other kind. */
const hex: Compare = (a, aStart, aEnd, b, bStart, bEnd) => {
	if (!isHex(a, aStart) || !isHex(b, bStart)) throw new Unreadable("bytea in another format than hex");
	return bytewise(a, aStart, aEnd, b, bStart, bEnd);
};

function isHex(bytes: Buffer, start: number): boolean {
	return bytes[start] === 0x5c && bytes[start + 1] === 0x78;
}

// ---- numeric -----------------------------------------------------------------------------------------------------

/** What numbers and their like are not, in the order of PostgreSQL: -Infinity, numbers, Infinity, NaN. */
const enum Kind {
	Lowest,
	Number,
	Highest,
	NaN,
}

function kindOfText(bytes: Buffer, start: number): Kind {
	const first = bytes[start]!;
	if (first === 0x4e) return Kind.NaN;
	if (first === 0x49) return Kind.Highest;
	return first === MINUS && bytes[start + 1] === 0x49 ? Kind.Lowest : Kind.Number;
}

const numericText: Compare = (a, aStart, aEnd, b, bStart, bEnd) => {
	const kind = kindOfText(a, aStart);
	const other = kindOfText(b, bStart);
	if (kind !== other || kind !== Kind.Number) return kind - other;
	const aSigned = a[aStart] === MINUS;
	const bSigned = b[bStart] === MINUS;
	if (aSigned !== bSigned) {
		// There is no -0.
		return aSigned ? -1 : 1;
	}
	const difference = magnitudes(a, aStart + (aSigned ? 1 : 0), aEnd, b, bStart + (bSigned ? 1 : 0), bEnd);
	return aSigned ? -difference : difference;
};

/** Decimals without a sign: as many digits before the point as there have to be. */
const magnitudes: Compare = (a, aStart, aEnd, b, bStart, bEnd) => {
	const aPoint = pointOf(a, aStart, aEnd);
	const bPoint = pointOf(b, bStart, bEnd);
	const longer = aPoint - aStart - (bPoint - bStart);
	const difference = longer !== 0 ? longer : bytewise(a, aStart, aPoint, b, bStart, bPoint);
	if (difference !== 0) return difference;
	return bytewise(a, aPoint, withoutZeros(a, aPoint, aEnd), b, bPoint, withoutZeros(b, bPoint, bEnd));
};

function pointOf(bytes: Buffer, start: number, end: number): number {
	let at = start;
	while (at < end && bytes[at] !== POINT) at++;
	return at;
}

/** Where the digits behind the point end, without zeros; the point itself when they all are. */
function withoutZeros(bytes: Buffer, point: number, end: number): number {
	let at = end;
	while (at > point + 1 && bytes[at - 1] === 0x30) at--;
	return at === point + 1 ? point : at;
}

/** Bits of the word `sign` (numeric.c). */
const NEGATIVE = 0x4000;
const SPECIAL = 0xc000;
const INFINITE = 0xd000;
const NEGATIVE_INFINITE = 0xf000;

/** Four words, then digits to the base of 10,000; the first of them is not 0. */
const numeric: Compare = (a, aStart, aEnd, b, bStart, bEnd) => {
	const aSign = a.readUInt16BE(aStart + 4);
	const bSign = b.readUInt16BE(bStart + 4);
	const kind = kindOfSign(aSign);
	const other = kindOfSign(bSign);
	if (kind !== other || kind !== Kind.Number) return kind - other;
	const aIsZero = aEnd - aStart === 8;
	const bIsZero = bEnd - bStart === 8;
	const aSide = aIsZero ? 0 : aSign === NEGATIVE ? -1 : 1;
	const bSide = bIsZero ? 0 : bSign === NEGATIVE ? -1 : 1;
	if (aSide !== bSide || aSide === 0) return aSide - bSide;
	const weight = a.readInt16BE(aStart + 2) - b.readInt16BE(bStart + 2);
	const difference = weight !== 0 ? weight : bytewise(a, aStart + 8, aEnd, b, bStart + 8, bEnd);
	return aSide < 0 ? -difference : difference;
};

function kindOfSign(sign: number): Kind {
	if (sign < SPECIAL) return Kind.Number;
	if (sign === INFINITE) return Kind.Highest;
	return sign === NEGATIVE_INFINITE ? Kind.Lowest : Kind.NaN;
}

// ---- dates -------------------------------------------------------------------------------------------------------

/** Dates, and timestamps without time zone. Of years with four digits the text is in their order. */
const timestamp: Compare = (a, aStart, aEnd, b, bStart, bEnd) => {
	if (isPlain(a, aStart, aEnd) && isPlain(b, bStart, bEnd)) return bytewise(a, aStart, aEnd, b, bStart, bEnd);
	return instants(a, aStart, aEnd, b, bStart, bEnd);
};

/** Texts with the same distance from UTC are as those without. */
const timestamptz: Compare = (a, aStart, aEnd, b, bStart, bEnd) => {
	const aZone = zoneOf(a, aStart, aEnd);
	const bZone = zoneOf(b, bStart, bEnd);
	if (aZone > 0 && bZone > 0 && bytewise(a, aZone, aEnd, b, bZone, bEnd) === 0)
		return bytewise(a, aStart, aZone, b, bStart, bZone);
	return instants(a, aStart, aEnd, b, bStart, bEnd);
};

/** YYYY-, and not BC. */
function isPlain(bytes: Buffer, start: number, end: number): boolean {
	return bytes[start + 4] === MINUS && bytes[start]! <= 0x39 && bytes[start]! >= 0x30 && bytes[end - 1] !== 0x43;
}

/** Where the zone of a plain timestamp begins; 0 when it is none. */
function zoneOf(bytes: Buffer, start: number, end: number): number {
	if (!isPlain(bytes, start, end)) return 0;
	// YYYY-MM-DD HH:MM:SS
	let at = start + 19;
	while (at < end && bytes[at] !== 0x2b && bytes[at] !== MINUS) at++;
	return at;
}

const ISO =
	/^(\d{4,7})-(\d\d)-(\d\d)(?: (\d\d):(\d\d):(\d\d)(?:\.(\d{1,6}))?)?(?:([+-])(\d\d)(?::(\d\d))?(?::(\d\d))?)?( BC)?$/;

const instants: Compare = (a, aStart, aEnd, b, bStart, bEnd) => {
	const [second, micro] = instant(a.latin1Slice(aStart, aEnd));
	const [otherSecond, otherMicro] = instant(b.latin1Slice(bStart, bEnd));
	return second !== otherSecond ? (second < otherSecond ? -1 : 1) : micro - otherMicro;
};

/** Seconds since 1970, and microseconds beyond them. */
function instant(text: string): [second: number, micro: number] {
	if (text === "infinity") return [Number.POSITIVE_INFINITY, 0];
	if (text === "-infinity") return [Number.NEGATIVE_INFINITY, 0];
	const found = ISO.exec(text);
	if (found === null) throw new Unreadable("a date in another DateStyle than ISO");
	const [, year, month, day, hours, minutes, seconds, fraction, sign, zoneHours, zoneMinutes, zoneSeconds, bc] = found;
	const days = daysOf(bc === undefined ? Number(year) : 1 - Number(year), Number(month), Number(day));
	const time = 3600 * number(hours) + 60 * number(minutes) + number(seconds);
	const zone = 3600 * number(zoneHours) + 60 * number(zoneMinutes) + number(zoneSeconds);
	return [86400 * days + time - (sign === "-" ? -zone : zone), number((fraction ?? "").padEnd(6, "0"))];
}

function number(text: string | undefined): number {
	return text === undefined ? 0 : Number(text);
}

/** Days from 1970-01-01 to a date of the Gregorian calendar, also where that was not in use. Years begin in March. */
function daysOf(year: number, month: number, day: number): number {
	const y = month <= 2 ? year - 1 : year;
	const era = Math.floor(y / 400);
	const ofEra = y - 400 * era;
	const ofYear = Math.floor((153 * (month + (month > 2 ? -3 : 9)) + 2) / 5) + day - 1;
	const ofDays = 365 * ofEra + Math.floor(ofEra / 4) - Math.floor(ofEra / 100) + ofYear;
	return 146097 * era + ofDays - 719468;
}
