// What is tried of TLS with each driver, and what has to come of it: each sslmode × channel_binding × sslnegotiation against
// proxies with and without TLS, with another's certificate, and with certificates of clients. In libpq's words.

export const MODES = ["disable", "allow", "prefer", "require", "verify-ca", "verify-full"] as const;
export const BINDINGS = ["disable", "prefer", "require"] as const;
export const NEGOTIATIONS = ["postgres", "direct"] as const;

/** A proxy, and how one comes to it. */
export const PLACES = {
	"no TLS": "none",
	TLS: "offered",
	"TLS required": "required",
	"wrong host": "offered",
	"wrong authority": "offered",
	/** The client shows none, where it has to. */
	"no certificate": "required",
	"certificate, password": "required",
	/** No password is asked for. */
	"certificate only": "required",
} as const;
export type Place = keyof typeof PLACES;

export interface Case {
	readonly place: Place;
	readonly mode: (typeof MODES)[number];
	readonly binding: (typeof BINDINGS)[number];
	readonly negotiation: (typeof NEGOTIATIONS)[number];
}

export const CASES: readonly Case[] = MODES.flatMap((mode) =>
	NEGOTIATIONS.flatMap((negotiation) =>
		BINDINGS.flatMap((binding) =>
			(Object.keys(PLACES) as Place[]).map((place) => ({ place, mode, binding, negotiation })),
		),
	),
);

type Outcome = "encrypted" | "plain" | "refused";

/** Where drivers differ, whoever they connect to. */
export interface Ways {
	/** Whether sslnegotiation=direct may be asked for by an sslmode that does not insist on TLS. */
	readonly weakDirect: boolean;
	/**
	 * When sslmode=allow goes over to TLS: where the server refuses plain text, after whatever has failed, or never. (JDBC does where
	 * the server says 28000, as PostgreSQL does and PgDog does not.)
	 */
	readonly allow: "refused" | "failed" | "never";
}

/** libpq's documentation, "Database Connection Control Functions". */
export const LIBPQ: Ways = { weakDirect: false, allow: "refused" };

/** What has to come of a case. */
export function expected({ place, mode, binding, negotiation }: Case, { weakDirect, allow }: Ways): Outcome {
	const offer = PLACES[place];
	const insists = mode === "require" || mode.startsWith("verify");
	const isDirect = negotiation === "direct";
	if (isDirect && !insists && !weakDirect) return "refused";
	const goesOver = (allow !== "never" && offer === "required") || (allow === "failed" && binding === "require");
	if (!insists && mode !== "prefer" && !(mode === "allow" && goesOver && offer !== "none"))
		return offer === "required" || binding === "require" ? "refused" : "plain";
	// Only who has asked for TLS, and been told no, may go on without.
	if (offer === "none") return mode === "prefer" && binding !== "require" && !isDirect ? "plain" : "refused";
	if (place === "no certificate") return "refused";
	if (place === "wrong host" && mode === "verify-full") return "refused";
	if (place === "wrong authority" && mode.startsWith("verify")) return "refused";
	// Only SCRAM binds.
	return place === "certificate only" && binding === "require" ? "refused" : "encrypted";
}

/** What a driver has said, as an Outcome. */
export function outcomeOf(said: string): Outcome {
	return said === "encrypted" || said === "plain" ? said : "refused";
}
