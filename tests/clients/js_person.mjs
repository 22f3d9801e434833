// One matrix-js-sdk client, driven over standard input and output (operations.mjs).
import { serve } from "./operations.mjs";

const sdk = await import("matrix-js-sdk");
const { VerificationPhase: Phase } = await import("matrix-js-sdk/lib/crypto-api/index.js");

let client;
let recoveryKey;
const refusals = [];
// The verification that this device asked for or was asked for last, and how it goes on.
let verification;
let comparison;
let confirmed;
const cryptoCallbacks = {
    getSecretStorageKey: async ({ keys }) => [Object.keys(keys)[0], recoveryKey],
    cacheSecretStorageKey: (_id, _info, key) => (recoveryKey = key),
};

const operations = {
    async register({ baseUrl, username, password, encrypts }) {
        const nobody = sdk.createClient({ baseUrl });
        await nobody.registerRequest({ username, password, auth: { type: "m.login.dummy" } });
        return operations.login({ baseUrl, username, password, encrypts });
    },

    async login({ baseUrl, username, password, encrypts }) {
        const nobody = sdk.createClient({ baseUrl });
        const identifier = { type: "m.id.user", user: username };
        const made = await nobody.loginRequest({ type: "m.login.password", identifier, password });
        client = sdk.createClient({
            baseUrl,
            userId: made.user_id,
            deviceId: made.device_id,
            accessToken: made.access_token,
            cryptoCallbacks,
        });
        if (encrypts) await client.initRustCrypto({ useIndexedDB: false });
        client.on("crypto.verificationRequestReceived", (request) => (verification = request));
        client.on("sync", (state, _, data) => state === "ERROR" && refusals.push(String(data?.error)));
        // Detached: the timeline then has nothing but what the server has sent.
        await client.startClient({ initialSyncLimit: 100, pendingEventOrdering: "detached", pollTimeout: 10_000 });
        await new Promise((resolve) => client.on("sync", (state) => state === "PREPARED" && resolve()));
        return made.user_id;
    },

    async createRoom({ options }) {
        return (await client.createRoom(options)).room_id;
    },

    async join({ roomId }) {
        await client.joinRoom(roomId);
    },

    async send({ roomId, text }) {
        return (await client.sendTextMessage(roomId, text)).event_id;
    },

    async edit({ roomId, eventId, text }) {
        const content = {
            "msgtype": "m.text",
            "body": `* ${text}`,
            "m.new_content": { msgtype: "m.text", body: text },
            "m.relates_to": { rel_type: "m.replace", event_id: eventId },
        };
        return (await client.sendMessage(roomId, content)).event_id;
    },

    async redact({ roomId, eventId, reason }) {
        return (await client.redactEvent(roomId, eventId, undefined, { reason })).event_id;
    },

    async typing({ roomId, typing }) {
        await client.sendTyping(roomId, typing, 20_000);
    },

    async read({ roomId, eventId }) {
        await client.sendReadReceipt(client.getRoom(roomId).findEventById(eventId));
    },

    async displayName({ name }) {
        await client.setDisplayName(name);
    },

    async leave({ roomId }) {
        await client.leave(roomId);
    },

    // Everything that a person at this client would see of a room; null before it is known.
    async look({ roomId }) {
        const room = client.getRoom(roomId);
        if (!room) return null;
        const members = {};
        for (const member of [...room.currentState.getMembers()]) {
            members[member.userId] = { membership: member.membership, name: member.name, typing: member.typing };
        }
        return {
            refusals,
            name: room.name,
            membership: room.getMyMembership(),
            members,
            readUpTo: Object.fromEntries(Object.keys(members).map((id) => [id, room.getEventReadUpTo(id, true)])),
            unread: room.getUnreadNotificationCount("total") ?? 0,
            timeline: room.getLiveTimeline().getEvents().map((event) => ({
                event_id: event.getId(),
                type: event.getType(),
                sender: event.getSender(),
                state_key: event.getStateKey() ?? null,
                content: event.getContent(),
                original: event.getOriginalContent(),
                redacted: event.isRedacted(),
                encrypted: event.isEncrypted(),
                sealed: event.isDecryptionFailure() || event.isBeingDecrypted(),
            })),
        };
    },

    async whoAmI() {
        return client.getDeviceId();
    },

    // Cross-signing keys, secret storage that holds them, and a backup of room keys; the key that opens all of it.
    async bootstrap() {
        const crypto = client.getCrypto();
        const authUploadDeviceSigningKeys = (upload) => upload(null);
        await crypto.bootstrapCrossSigning({ setupNewCrossSigning: true, authUploadDeviceSigningKeys });
        const key = await crypto.createRecoveryKeyFromPassphrase();
        await crypto.bootstrapSecretStorage({
            createSecretStorageKey: async () => key,
            setupNewSecretStorage: true,
            setupNewKeyBackup: true,
        });
        return Array.from(key.privateKey);
    },

    // What a further device does with that key: it signs itself, and fetches the backup.
    async restore({ key }) {
        recoveryKey = Uint8Array.from(key);
        const crypto = client.getCrypto();
        // Private keys are taken only for public ones that are known.
        await crypto.userHasCrossSigningKeys(client.getUserId(), true);
        await crypto.bootstrapCrossSigning({ authUploadDeviceSigningKeys: (upload) => upload(null) });
        await crypto.loadSessionBackupPrivateKeyFromSecretStorage();
        await crypto.checkKeyBackupAndEnable();
        return (await crypto.restoreKeyBackup()).imported;
    },

    async backedUp() {
        // The library remembers how many there were when it began.
        return (await client.http.authedRequest("GET", "/room_keys/version")).count;
    },

    async trust({ userId, deviceId }) {
        const crypto = client.getCrypto();
        await crypto.getUserDeviceInfo([userId], true);
        const status = await crypto.getDeviceVerificationStatus(userId, deviceId);
        return { known: !!status, signed: status?.signedByOwner ?? false, verified: status?.crossSigningVerified ?? false };
    },

    // Whether a user is verified, by what the server has told unasked.
    async userTrust({ userId }) {
        return (await client.getCrypto().getUserVerificationStatus(userId)).isCrossSigningVerified();
    },

    // Which private cross-signing keys this device has.
    async privateKeys() {
        return (await client.getCrypto().getCrossSigningStatus()).privateKeysCachedLocally;
    },

    // Ask somebody in a room, a device, or, without either, the user's own devices.
    async ask({ userId, roomId, deviceId }) {
        const crypto = client.getCrypto();
        if (roomId) verification = await crypto.requestVerificationDM(userId, roomId);
        else if (deviceId) verification = await crypto.requestDeviceVerification(userId, deviceId);
        else verification = await crypto.requestOwnUserVerification();
    },

    // Who it is that asks, once somebody does, and say yes.
    async accept() {
        await changes(client, "crypto.verificationRequestReceived", () => verification?.phase === Phase.Requested);
        await verification.accept();
        return verification.otherUserId;
    },

    // The emoji that both sides show; the side that `starts` chooses the method.
    async compare({ starts }) {
        await changes(verification, "change", () => ended() || verification.phase >= Phase.Ready);
        if (starts) await verification.startVerification("m.sas.v1");
        await changes(verification, "change", () => ended() || verification.verifier);
        if (ended()) throw new Error(`cancelled: ${verification.cancellationCode}`);
        const { verifier } = verification;
        confirmed = verifier.verify();
        // The other side's key may have come before the answer to what this side has sent. Whoever waits hears of a failure, too.
        const shown = changes(verifier, "show_sas", () => verifier.getShowSasCallbacks());
        await Promise.race([shown, confirmed]);
        comparison = verifier.getShowSasCallbacks();
        return comparison.sas.emoji;
    },

    // They are the same.
    async confirm() {
        await comparison.confirm();
        await confirmed;
    },

    // An image as clients send one in an encrypted room: what is uploaded is a block of bytes of no type (client-server API,
    // "Sending encrypted attachments"). Its thumbnail beside it is uploaded as it is.
    async sendImage({ roomId, name, image, thumbnail, plain }) {
        const bytes = Buffer.from(image, "base64");
        const key = await crypto.subtle.generateKey({ name: "AES-CTR", length: 256 }, true, ["encrypt", "decrypt"]);
        const iv = new Uint8Array(16);
        crypto.getRandomValues(iv.subarray(0, 8));
        const encrypted = await crypto.subtle.encrypt({ name: "AES-CTR", counter: iv, length: 64 }, key, bytes);
        const type = "application/octet-stream";
        const uploaded = await client.uploadContent(new Blob([encrypted], { type }), { type, includeFilename: false });
        const small = await client.uploadContent(new Blob([Buffer.from(thumbnail, "base64")]), { type: "image/png", name });
        const unpadded = (data) => Buffer.from(data).toString("base64").replace(/=+$/, "");
        const content = {
            msgtype: "m.image",
            body: name,
            // Only within an encrypted event is there none: elsewhere matrix-nio wants it.
            ...(plain ? { url: uploaded.content_uri } : {}),
            info: { mimetype: "image/png", size: bytes.length, thumbnail_url: small.content_uri },
            file: {
                v: "v2",
                url: uploaded.content_uri,
                key: await crypto.subtle.exportKey("jwk", key),
                iv: unpadded(iv),
                hashes: { sha256: unpadded(await crypto.subtle.digest("SHA-256", encrypted)) },
            },
        };
        return (await client.sendMessage(roomId, content)).event_id;
    },

    // The image of an event, fetched with a token and decrypted.
    async fetchImage({ roomId, eventId }) {
        const { file } = client.getRoom(roomId).findEventById(eventId).getContent();
        const answer = await operations.fetchMedia({ uri: file.url });
        const bytes = Buffer.from(answer.body, "base64");
        const digest = Buffer.from(await crypto.subtle.digest("SHA-256", bytes)).toString("base64").replace(/=+$/, "");
        if (digest !== file.hashes.sha256) throw new Error(`the hash is ${digest}`);
        const key = await crypto.subtle.importKey("jwk", file.key, { name: "AES-CTR" }, false, ["decrypt"]);
        const counter = Buffer.from(file.iv, "base64");
        return Buffer.from(await crypto.subtle.decrypt({ name: "AES-CTR", counter, length: 64 }, key, bytes)).toString("base64");
    },

    // What is behind an mxc:// URI, whole or as a thumbnail.
    async fetchMedia({ uri, width, height, method }) {
        const url = client.mxcUrlToHttp(uri, width, height, method, false, true, true);
        const answer = await fetch(url, { headers: { Authorization: `Bearer ${client.getAccessToken()}` } });
        const body = Buffer.from(await answer.arrayBuffer()).toString("base64");
        return { status: answer.status, type: answer.headers.get("content-type"), body };
    },

    async mediaConfig() {
        return client.getMediaConfig(true);
    },

    async avatar({ uri }) {
        await client.setAvatarUrl(uri);
    },

    async logout() {
        await client.logout(true);
    },
};

const ended = () => [Phase.Cancelled, Phase.Done].includes(verification.phase);

// Waits for an event of an emitter after which something holds.
function changes(emitter, name, condition) {
    return new Promise((resolve) => {
        const look = () => {
            if (!condition()) return;
            emitter.off(name, look);
            resolve();
        };
        emitter.on(name, look);
        look();
    });
}

await serve(operations);
process.exit(0);
