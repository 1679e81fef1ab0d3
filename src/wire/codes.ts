// The codes of protocol version 3, spelled as in PostgreSQL docs, "Message Formats".
// Imported by everyone who looks at a message; knows nothing else.

/** First byte of a message from a client. */
export const enum Frontend {
	Query = 0x51, // Q
	Parse = 0x50, // P
	Bind = 0x42, // B
	Describe = 0x44, // D
	Execute = 0x45, // E
	Close = 0x43, // C
	Sync = 0x53, // S
	Flush = 0x48, // H
	CopyData = 0x64, // d
	CopyDone = 0x63, // c
	CopyFail = 0x66, // f
	FunctionCall = 0x46, // F
	Terminate = 0x58, // X
	/** PasswordMessage, SASLInitialResponse, SASLResponse, GSSResponse: which one, the login's state tells. */
	Password = 0x70, // p
}

/** First byte of a message from a server. */
export const enum Backend {
	DataRow = 0x44, // D
	CommandComplete = 0x43, // C
	ReadyForQuery = 0x5a, // Z
	RowDescription = 0x54, // T
	ParseComplete = 0x31, // 1
	BindComplete = 0x32, // 2
	CloseComplete = 0x33, // 3
	NoData = 0x6e, // n
	ParameterDescription = 0x74, // t
	PortalSuspended = 0x73, // s
	EmptyQueryResponse = 0x49, // I
	ErrorResponse = 0x45, // E
	NoticeResponse = 0x4e, // N
	NotificationResponse = 0x41, // A
	ParameterStatus = 0x53, // S
	BackendKeyData = 0x4b, // K
	Authentication = 0x52, // R
	CopyInResponse = 0x47, // G
	CopyOutResponse = 0x48, // H
	CopyBothResponse = 0x57, // W
	CopyData = 0x64, // d
	CopyDone = 0x63, // c
	FunctionCallResponse = 0x56, // V
	NegotiateProtocolVersion = 0x76, // v
}

/** The status byte of ReadyForQuery. */
export const enum TxStatus {
	Idle = 0x49, // I
	InBlock = 0x54, // T
	Failed = 0x45, // E
}

/** The code in the first packet, which has no type byte. */
export const enum StartupCode {
	CancelRequest = 80877102,
	SSLRequest = 80877103,
	GSSENCRequest = 80877104,
	Protocol30 = 196608,
	Protocol32 = 196610,
}

/** The byte of Describe and Close that says what they are about. */
export const enum Target {
	Statement = 0x53, // S
	Portal = 0x50, // P
}

/** int32 of an Authentication message. */
export const enum Auth {
	Ok = 0,
	CleartextPassword = 3,
	MD5Password = 5,
	SASL = 10,
	SASLContinue = 11,
	SASLFinal = 12,
}

/** `MAX_STARTUP_PACKET_LENGTH` in PostgreSQL's pqcomm.h, bytes. */
export const MAX_STARTUP_PACKET_LENGTH = 10_000;
/** `PG_MAX_AUTH_TOKEN_LENGTH` in PostgreSQL's auth.c: longest message of a client before it is let in, bytes. */
export const MAX_AUTH_TOKEN_LENGTH = 65_535;
/** `PQ_SMALL_MESSAGE_LIMIT` in PostgreSQL's libpq.h, bytes: messages that never carry data. */
export const SMALL_MESSAGE_LIMIT = 10_000;
/** `PQ_LARGE_MESSAGE_LIMIT` in PostgreSQL's libpq.h, bytes (MaxAllocSize - 1). */
export const LARGE_MESSAGE_LIMIT = 0x3ffffffe;
