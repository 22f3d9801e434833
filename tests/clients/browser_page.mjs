// A client of one room: matrix-js-sdk with its Rust crypto as a browser has it, behind the forms of browser_page.html.
// Who is logged in stays so across a reload: the session in localStorage, the keys in IndexedDB.
import * as sdk from "matrix-js-sdk";
import { decodeBase64, encodeUnpaddedBase64 } from "matrix-js-sdk/lib/base64.js";

const THUMBNAIL = [160, 120];
const main = document.querySelector("main");
const alert = document.querySelector("[role=alert]");
const pictures = new Map();
let client;
let roomId;

function complain(error) {
    alert.textContent += `${error?.stack ?? error}\n`;
}

function onSubmit(id, action) {
    const form = document.getElementById(id);
    form.addEventListener("submit", (event) => {
        event.preventDefault();
        action(Object.fromEntries(new FormData(form))).then(() => form.reset(), complain);
    });
}

onSubmit("login", async ({ baseUrl, username, password }) => {
    const identifier = { type: "m.id.user", user: username };
    const made = await sdk.createClient({ baseUrl }).loginRequest({ type: "m.login.password", identifier, password });
    const session = { baseUrl, userId: made.user_id, deviceId: made.device_id, accessToken: made.access_token };
    localStorage.setItem("session", JSON.stringify(session));
    await enter(session);
});

onSubmit("create", async ({ name, invite, encrypted }) => {
    const encryption = { type: "m.room.encryption", state_key: "", content: { algorithm: "m.megolm.v1.aes-sha2" } };
    const initial_state = encrypted ? [encryption] : [];
    const made = await client.createRoom({ name, preset: "private_chat", invite: [invite], initial_state });
    show(made.room_id);
});

onSubmit("say", async ({ text }) => {
    await client.sendTextMessage(roomId, text);
});

document.getElementById("image").addEventListener("change", ({ target }) => {
    sendImage(target.files[0]).catch(complain);
    // Choosing the same file again is a change.
    target.value = "";
});

// In an encrypted room the image and a thumbnail of the page's own making; else the image, of which the server makes one.
async function sendImage(file) {
    const info = { mimetype: file.type, size: file.size };
    const content = { msgtype: "m.image", body: file.name, info };
    if (client.getRoom(roomId).hasEncryptionStateEvent()) {
        content.file = await encrypted(file);
        info.thumbnail_file = await encrypted(await smaller(file));
    } else {
        content.url = (await client.uploadContent(file)).content_uri;
    }
    await client.sendMessage(roomId, content);
}

async function smaller(file) {
    const canvas = new OffscreenCanvas(...THUMBNAIL);
    canvas.getContext("2d").drawImage(await createImageBitmap(file), 0, 0, ...THUMBNAIL);
    return canvas.convertToBlob({ type: "image/png" });
}

async function enter(session) {
    client = sdk.createClient(session);
    await client.initRustCrypto();
    for (const name of ["Room.timeline", "Event.decrypted", "RoomState.members", "Room.name"]) client.on(name, draw);
    client.on("sync", (state, _, data) => {
        if (state === "ERROR") complain(data?.error);
        if (state === "PREPARED") show(localStorage.getItem("room") ?? undefined);
    });
    // Detached: the timeline then has nothing but what the server has sent.
    await client.startClient({ initialSyncLimit: 50, pendingEventOrdering: "detached", pollTimeout: 10_000 });
}

function show(id) {
    if (id) localStorage.setItem("room", id);
    roomId = id;
    document.getElementById("login").hidden = true;
    main.hidden = false;
    draw();
}

function draw() {
    const room = roomId && client.getRoom(roomId);
    if (!room) return;
    document.querySelector("h1").textContent = room.name;
    const joined = room.getJoinedMembers().map((member) => member.userId);
    document.getElementById("members").textContent = joined.sort().join(", ");
    const messages = room.getLiveTimeline().getEvents().filter((event) => /^m\.room\.(message|encrypted)$/.test(event.getType()));
    document.querySelector("ol").replaceChildren(...messages.map(item));
}

function item(event) {
    const made = document.createElement("li");
    const sealed = event.isDecryptionFailure() || event.isBeingDecrypted() || event.getType() === "m.room.encrypted";
    made.className = sealed ? "sealed" : event.isEncrypted() ? "opened" : "plain";
    made.dataset.id = event.getId();
    const sender = document.createElement("b");
    sender.textContent = event.getSender();
    made.append(sender, event.getContent().body ?? "");
    if (!sealed && event.getContent().msgtype === "m.image") made.append(picture(event));
    return made;
}

// The same element at every drawing: its image is fetched once.
function picture(event) {
    if (!pictures.has(event.getId())) {
        const made = document.createElement("img");
        // What is there is also painted.
        made.decoding = "sync";
        pictures.set(event.getId(), made);
        const { url, file, info } = event.getContent();
        (file ? decrypted(info?.thumbnail_file ?? file) : fetched(url, ...THUMBNAIL, "scale"))
            .then((blob) => (made.src = URL.createObjectURL(blob)))
            .catch(complain);
    }
    return pictures.get(event.getId());
}

// An <img> sends no token, so scripts fetch media, from another origin and with a header that wants a preflight.
async function fetched(uri, ...size) {
    const url = client.mxcUrlToHttp(uri, ...(size.length ? size : [undefined, undefined, undefined]), false, true, true);
    const answer = await fetch(url, { headers: { Authorization: `Bearer ${client.getAccessToken()}` } });
    if (!answer.ok) throw new Error(`${url}: ${answer.status}`);
    return answer.blob();
}

// Client-server API, "Sending encrypted attachments": what is uploaded is a block of bytes of no type.
async function encrypted(blob) {
    const key = await crypto.subtle.generateKey({ name: "AES-CTR", length: 256 }, true, ["encrypt", "decrypt"]);
    const iv = new Uint8Array(16);
    crypto.getRandomValues(iv.subarray(0, 8));
    const bytes = await crypto.subtle.encrypt({ name: "AES-CTR", counter: iv, length: 64 }, key, await blob.arrayBuffer());
    const type = "application/octet-stream";
    const uploaded = await client.uploadContent(new Blob([bytes], { type }), { type, includeFilename: false });
    const jwk = await crypto.subtle.exportKey("jwk", key);
    const hashes = { sha256: await sha256(bytes) };
    return { v: "v2", url: uploaded.content_uri, mimetype: blob.type, key: jwk, iv: encodeUnpaddedBase64(iv), hashes };
}

async function decrypted({ url, key, iv, hashes, mimetype }) {
    const bytes = await (await fetched(url)).arrayBuffer();
    const digest = await sha256(bytes);
    if (digest !== hashes.sha256) throw new Error(`the hash is ${digest}`);
    const opener = await crypto.subtle.importKey("jwk", key, { name: "AES-CTR" }, false, ["decrypt"]);
    const counter = decodeBase64(iv);
    return new Blob([await crypto.subtle.decrypt({ name: "AES-CTR", counter, length: 64 }, opener, bytes)], { type: mimetype });
}

async function sha256(bytes) {
    return encodeUnpaddedBase64(new Uint8Array(await crypto.subtle.digest("SHA-256", bytes)));
}

const kept = localStorage.getItem("session");
if (kept) enter(JSON.parse(kept)).catch(complain);
