// Has a Stream go on with TLS, once both ends have said that they will (PostgreSQL docs, "SSL Session Encryption").

import type { Socket, SocketHandler, TLSOptions } from "bun";
import { Stream, type StreamOwner } from "./stream.ts";
import {
	ALPN_LIST,
	judgeClient,
	judgeServer,
	type Secured,
	SSL_REQUEST,
	type TlsDemands,
	type TlsIdentity,
} from "./tls.ts";

/** Bun goes on telling of an encrypted connection's bytes on the wire, which nobody wants to hear of. */
const CIPHERTEXT: Stream = new Stream({} as Socket<Stream>);
CIPHERTEXT.closed = true;

/**
 * Bun (1.4.5) would wait for the peer to end TLS, too, for as long as it likes, and after `end` not even `terminate` closes the
 * descriptor.
 */
function endAtOnce(this: Socket<unknown>): number {
	this.shutdown();
	this.close();
	return 0;
}

function upgrade(
	socket: Socket<Stream>,
	stream: Stream,
	tls: TLSOptions,
	handlers: SocketHandler<Stream>,
): Socket<Stream> {
	const [plain, encrypted] = socket.upgradeTLS<Stream>({ tls, data: stream, socket: handlers });
	plain.data = CIPHERTEXT;
	encrypted.end = endAtOnce;
	return encrypted;
}

/**
 * Goes on with TLS, as its server: nothing that is read from here on is taken for anything but TLS.
 * @param handlers as the socket has them
 * @param done as for `Stream.encrypt`
 */
export function acceptTls(
	stream: Stream,
	identity: TlsIdentity,
	handlers: SocketHandler<Stream>,
	done: (outcome: Secured | string) => void,
): void {
	const { certificate, key, authorities, minimum } = identity;
	const tls = {
		cert: certificate,
		key,
		...(authorities === null ? {} : { ca: authorities, requestCert: true }),
		// Whoever shows a wrong certificate is refused by `done`, whoever shows none by his login.
		rejectUnauthorized: false,
		minVersion: minimum,
		ALPNProtocols: ALPN_LIST,
	};
	stream.encrypt((socket) => upgrade(socket, stream, tls, handlers), judgeClient, done);
}

/**
 * Asks a server for TLS and goes on with it, or in plain text where that will do.
 * @param name the host as the configuration has it: whose certificate it has to be
 * @param owner of the stream when that is done, in the same event
 * @throws Error that says why the connection may not be used
 */
export function requestTls(
	stream: Stream,
	demands: TlsDemands,
	name: string,
	handlers: SocketHandler<Stream>,
	owner: StreamOwner,
): Promise<void> {
	const { promise, resolve, reject } = Promise.withResolvers<void>();
	const ready = () => {
		stream.owner = owner;
		resolve();
	};
	const onHandshake = (outcome: Secured | string) => {
		if (typeof outcome !== "string") ready();
		else reject(new Error(`TLS handshake failed: ${outcome}${trusting(demands.verify)}`));
	};
	stream.owner = {
		onDrain() {},
		onClose: (error) => reject(error ?? new Error("the server closed the connection during the TLS handshake")),
		onData(chunk) {
			const answer = String.fromCharCode(chunk[0]!);
			// Somebody in the middle could have put it there (CVE-2021-23222).
			if (chunk.length > 1) reject(new Error("received unencrypted data after SSL response"));
			else if (answer === "S") connectTls(stream, demands, name, handlers, onHandshake);
			else if (answer !== "N") reject(new Error("the server does not understand SSLRequest"));
			else if (demands.verify === "prefer") ready();
			else reject(new Error("the server does not support TLS, but tls_verify requires it"));
		},
	};
	stream.writeAll(SSL_REQUEST);
	return promise;
}

/** Where to look when a certificate is not taken. */
function trusting(verify: TlsDemands["verify"]): string {
	return verify === "prefer" ? "" : ` (tls_verify = "${verify}"; tls_server_ca_certificate says who is trusted)`;
}

function connectTls(
	stream: Stream,
	demands: TlsDemands,
	name: string,
	handlers: SocketHandler<Stream>,
	done: (outcome: Secured | string) => void,
): void {
	const { verify, authorities, identity } = demands;
	const tls = {
		serverName: name,
		...(authorities === null ? {} : { ca: authorities }),
		...(identity === null ? {} : { cert: identity.certificate, key: identity.key }),
		// Judged by us, but for the strictest, which Bun may as well judge, too.
		rejectUnauthorized: verify === "verify_full",
		minVersion: 0x303,
		ALPNProtocols: ALPN_LIST,
	};
	stream.encrypt((socket) => upgrade(socket, stream, tls, handlers), judgeServer(verify), done);
}
