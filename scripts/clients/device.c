/* A device client of Relay in C99 with BSD sockets: device ws://HOST:PORT/PATH MICROPHONE.pcm SPEAKER.pcm
 *
 * Written as for an ESP32: one thread, one loop without allocation, about 50 KiB of static memory, and its own
 * WebSocket. On a device, the I2S driver replaces the two files, and the platform's TLS (wss) wraps send and recv.
 * Both files are raw PCM16, mono, 16 kHz; the microphone's may grow while it is read. One turn, in real time. The key, if any, is in RELAY_KEY.
 *
 * Exit codes: 0 turn completed, 1 usage error, 2 refused permanently, 3 connection lost or relay busy, 4 no answer
 */
#define _POSIX_C_SOURCE 200809L

#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#ifndef MSG_NOSIGNAL
#define MSG_NOSIGNAL 0 /* lwIP raises no signals */
#endif

enum { OK = 0, USAGE = 1, REFUSED = 2, TRY_LATER = 3, NO_ANSWER = 4 };
enum { CONTINUATION = 0, TEXT = 1, BINARY = 2, CLOSE = 8, PING = 9, PONG = 10 };

#define FRAME_MS 20
#define FRAME_BYTES 640 /* 20 ms */
#define BYTES_PER_MS 32
#define SETTLE_MS 1000 /* text overtakes audio: after the end of a response one more item may follow */
#define GIVE_UP_MS 30000
#define GOODBYE_MS 2000
#define SOCKET_TIMEOUT_S 5
/* The relay sends at most maxAheadMs (500) ahead of what is played; 1 s leaves room for the round trip. */
#define RING_BYTES 32768
#define MAX_TEXT_BYTES 16384 /* the rest of a longer message is ignored */
#define MAX_ITEMS 8
#define MAX_ID_BYTES 257 /* 256 and the terminating NUL */

static const char HELLO[] = "{\"type\":\"hello\",\"v\":1,\"input\":{\"rate\":16000},\"output\":{\"rate\":16000},"
                            "\"maxAheadMs\":500}";

static int line = -1, entropy = -1; /* the socket; the source of masks (esp_random() on a device) */

/* The audio to be played: a ring buffer, and the items in it by their positions in the stream of all audio. */
static struct {
    uint8_t ring[RING_BYTES];
    uint64_t came, played; /* total bytes */
    struct {
        char id[MAX_ID_BYTES];
        uint64_t from, to;
        bool complete;
    } items[MAX_ITEMS];
    int n_items;
    unsigned lost;
} speaker;

/* The received message. It may have several frames: its opcode and text are kept until the one with FIN. */
static struct {
    uint8_t header[14];
    size_t n_header, in_frame; /* received bytes of the header, missing bytes of the payload */
    int opcode, message;       /* the opcodes of this frame, and of the message that it is a fragment of */
    bool fin, in_payload;
    uint8_t control[126];
    size_t n_control;
    char text[MAX_TEXT_BYTES + 1];
    size_t n_text;
} in;

static bool response_ended, retryable = true, over; /* `over`: the connection is closed */
static int verdict = -1;                            /* the exit code, once known */
static int64_t news;                                /* when something was last sent, received or played; pings do not count */

static void end(int code) {
    over = true;
    if (verdict < 0) verdict = code;
}

static int64_t now_ms(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* -- sending WebSocket frames ------------------------------------------------------------------------------------ */

static bool send_all(const uint8_t *bytes, size_t n) {
    while (n > 0) {
        ssize_t sent = send(line, bytes, n, MSG_NOSIGNAL);
        if (sent <= 0) return false;
        bytes += sent;
        n -= (size_t)sent;
    }
    return true;
}

/* Send one frame of at most FRAME_BYTES in one write, masked as RFC 6455 (5.3) requires of a client. */
static void send_frame(int opcode, const void *payload, size_t n) {
    uint8_t frame[8 + FRAME_BYTES], *mask;
    size_t at = 0;
    if (n > FRAME_BYTES) n = FRAME_BYTES;
    frame[at++] = (uint8_t)(0x80 | opcode);
    if (n < 126) {
        frame[at++] = (uint8_t)(0x80 | n);
    } else {
        frame[at++] = 0x80 | 126;
        frame[at++] = (uint8_t)(n >> 8);
        frame[at++] = (uint8_t)n;
    }
    mask = frame + at;
    if (read(entropy, mask, 4) != 4) memset(mask, 0x5a, 4);
    at += 4;
    for (size_t i = 0; i < n; i++) frame[at + i] = ((const uint8_t *)payload)[i] ^ mask[i % 4];
    if (!over && !send_all(frame, at + n)) end(TRY_LATER);
}

static void send_text(const char *text) { send_frame(TEXT, text, strlen(text)); }

/* -- minimal JSON parsing ------------------------------------------------------------------------------------------- */

/* The value of a member of the outermost object, or NULL. Nested members of the same name are ignored. */
static const char *member(const char *json, const char *name) {
    size_t n = strlen(name);
    int depth = 0;
    for (const char *p = json; *p; p++) {
        if (*p == '{' || *p == '[') depth++;
        if (*p == '}' || *p == ']') depth--;
        if (*p != '"') continue;
        const char *from = ++p;
        while (*p && *p != '"') p += *p == '\\' && p[1] ? 2 : 1;
        if (!*p) return NULL;
        if (depth == 1 && p[1] == ':' && (size_t)(p - from) == n && memcmp(from, name, n) == 0) {
            for (p += 2; *p == ' '; p++) {}
            return p;
        }
    }
    return NULL;
}

static bool is_true(const char *json, const char *name) {
    const char *value = member(json, name);
    return value && strncmp(value, "true", 4) == 0;
}

/* Copy a string as it is in the JSON, with its escapes: ids are sent back unchanged. Truncates to the buffer. */
static const char *string(const char *json, const char *name, char *out, size_t size) {
    const char *value = member(json, name);
    size_t n = 0;
    if (value && *value == '"') {
        for (value++; *value && *value != '"' && n + 2 < size; n++) {
            out[n] = *value++;
            if (out[n] == '\\' && *value) out[++n] = *value++;
        }
    }
    out[n] = 0;
    return out;
}

/* -- the speaker ---------------------------------------------------------------------------------------------------- */

static void queue_audio(const uint8_t *bytes, size_t n) {
    for (size_t i = 0; i < n; i++) {
        if (speaker.came - speaker.played >= RING_BYTES) { /* impossible with maxAheadMs: drop the newest audio */
            speaker.lost += (unsigned)(n - i);
            return;
        }
        speaker.ring[speaker.came++ % RING_BYTES] = bytes[i];
    }
}

static void acknowledge(int index) {
    char message[MAX_ID_BYTES + 64];
    uint64_t to = speaker.played;
    if (speaker.items[index].complete && speaker.items[index].to < to) to = speaker.items[index].to;
    snprintf(message, sizeof message, "{\"type\":\"playback\",\"itemId\":\"%s\",\"playedMs\":%lu}",
             speaker.items[index].id, (unsigned long)((to - speaker.items[index].from) / BYTES_PER_MS));
    send_text(message);
}

static void start_item(const char *message) {
    if (speaker.n_items == MAX_ITEMS) return; /* eight items within half a second: their audio plays without acknowledgement */
    string(message, "itemId", speaker.items[speaker.n_items].id, MAX_ID_BYTES);
    speaker.items[speaker.n_items].from = speaker.came;
    speaker.items[speaker.n_items].complete = false;
    speaker.n_items++;
}

static void end_item(const char *message) {
    char id[MAX_ID_BYTES];
    string(message, "itemId", id, sizeof id);
    for (int i = 0; i < speaker.n_items; i++) {
        if (strcmp(speaker.items[i].id, id) != 0) continue;
        speaker.items[i].to = speaker.came;
        speaker.items[i].complete = true;
    }
}

/* The user spoke: the queued audio must be neither played nor acknowledged. */
static void fall_silent(void) {
    speaker.played = speaker.came;
    speaker.n_items = 0;
}

/* Play 20 ms. Acknowledge every 200 ms and at an item's end: that makes the position of a barge-in exact. */
static void play(FILE *out, bool tell) {
    for (size_t n = 0; n < FRAME_BYTES && speaker.played < speaker.came; n++)
        fputc(speaker.ring[speaker.played++ % RING_BYTES], out);
    while (speaker.n_items > 0 && speaker.items[0].complete && speaker.played >= speaker.items[0].to) {
        acknowledge(0);
        speaker.n_items--;
        memmove(&speaker.items[0], &speaker.items[1], (size_t)speaker.n_items * sizeof speaker.items[0]);
    }
    if (tell && speaker.n_items > 0 && speaker.played >= speaker.items[0].from) acknowledge(0);
}

/* -- receiving WebSocket frames -------------------------------------------------------------------------------------- */

static void take_message(const char *message) {
    char name[32], words[512];
    string(message, "type", name, sizeof name);
    if (strcmp(name, "event") == 0) string(message, "name", name, sizeof name);
    if (strcmp(name, "audioStart") == 0) {
        start_item(message);
    } else if (strcmp(name, "audioEnd") == 0) {
        end_item(message);
    } else if (strcmp(name, "interrupted") == 0) {
        fall_silent();
    } else if (strcmp(name, "AISpeechDetected") == 0 || strcmp(name, "AIResponseStart") == 0) {
        response_ended = false;
    } else if (strcmp(name, "AIResponseEnd") == 0) {
        string(message, "status", words, sizeof words);
        response_ended = !is_true(message, "more") && strcmp(words, "cancelled") != 0; /* cancelled: user's turn next */
    } else if (strcmp(name, "transcript") == 0 && is_true(message, "final")) {
        printf("%s: ", string(message, "role", name, sizeof name));
        printf("%s\n", string(message, "text", words, sizeof words));
    } else if (strcmp(name, "error") == 0) {
        retryable = is_true(message, "retryable");
        fprintf(stderr, "%s: ", string(message, "code", name, sizeof name));
        fprintf(stderr, "%s\n", string(message, "message", words, sizeof words));
    } /* other messages are ignored */
}

static void take_close(void) {
    int code = in.n_control >= 2 ? in.control[0] << 8 | in.control[1] : 1005;
    bool final = code == 1002 || code == 1007 || code == 1008 || code == 1009 || (code == 1011 && !retryable);
    send_frame(CLOSE, in.control, in.n_control >= 2 ? 2 : 0);
    if (verdict < 0) fprintf(stderr, "closed with %d\n", code);
    end(final ? REFUSED : TRY_LATER);
}

static void end_of_frame(void) {
    if (in.opcode == PING) send_frame(PONG, in.control, in.n_control);
    if (in.opcode == CLOSE) take_close();
    if (in.opcode < CLOSE) news = now_ms();
    if (in.opcode < CLOSE && in.fin && in.message == TEXT) {
        in.text[in.n_text] = 0;
        take_message(in.text);
    }
}

/* Check a complete frame header. A violation of RFC 6455 ends the connection. */
static void begin_frame(uint64_t length) {
    in.opcode = in.header[0] & 0x0f;
    in.fin = in.header[0] & 0x80;
    bool control = in.opcode >= CLOSE, known = in.opcode <= BINARY || (in.opcode >= CLOSE && in.opcode <= PONG);
    if (in.header[0] & 0x70 || in.header[1] & 0x80 || !known || (control && (length > 125 || !in.fin)) ||
        length > 1 << 24) {
        end(TRY_LATER);
        return;
    }
    if (in.opcode == TEXT || in.opcode == BINARY) {
        in.message = in.opcode;
        in.n_text = 0;
    }
    in.n_control = 0;
    in.in_frame = (size_t)length;
    in.in_payload = true;
}

static void take_payload(const uint8_t *bytes, size_t n) {
    if (in.opcode >= CLOSE) {
        memcpy(in.control + in.n_control, bytes, n);
        in.n_control += n;
    } else if (in.message == BINARY) {
        queue_audio(bytes, n); /* at once: audio is never buffered twice */
    } else {
        size_t room = MAX_TEXT_BYTES - in.n_text;
        memcpy(in.text + in.n_text, bytes, n < room ? n : room);
        in.n_text += n < room ? n : room;
    }
}

/* Parse bytes of the stream, in pieces of any size. */
static void take_bytes(const uint8_t *bytes, size_t n) {
    while ((n > 0 || (in.in_payload && in.in_frame == 0)) && !over) {
        if (in.in_payload) {
            size_t part = n < in.in_frame ? n : in.in_frame;
            take_payload(bytes, part);
            bytes += part;
            n -= part;
            in.in_frame -= part;
            if (in.in_frame > 0) continue;
            in.in_payload = false;
            in.n_header = 0;
            end_of_frame();
            continue;
        }
        in.header[in.n_header++] = *bytes++;
        n--;
        if (in.n_header < 2) continue;
        int short_length = in.header[1] & 0x7f, more = short_length == 127 ? 8 : short_length == 126 ? 2 : 0;
        if (in.n_header < (size_t)(2 + more)) continue;
        uint64_t length = more ? 0 : (uint64_t)short_length;
        for (int i = 0; i < more; i++) length = length << 8 | in.header[2 + i];
        begin_frame(length);
    }
}

/* -- connecting ------------------------------------------------------------------------------------------------------ */

static int connect_to(const char *host, const char *port) {
    struct addrinfo hints, *addresses, *one;
    struct timeval patience = {SOCKET_TIMEOUT_S, 0};
    int on = 1, fd = -1;
    memset(&hints, 0, sizeof hints);
    hints.ai_socktype = SOCK_STREAM;
    if (getaddrinfo(host, port, &hints, &addresses) != 0) return -1;
    for (one = addresses; one; one = one->ai_next) {
        fd = socket(one->ai_family, one->ai_socktype, one->ai_protocol);
        if (fd >= 0 && connect(fd, one->ai_addr, one->ai_addrlen) == 0) break;
        if (fd >= 0) close(fd);
        fd = -1;
    }
    freeaddrinfo(addresses);
    if (fd < 0) return -1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on); /* 20 ms of voice must not wait for an acknowledgement */
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    return fd;
}

static void base64(const uint8_t *bytes, size_t n, char *out) {
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for (size_t i = 0; i < n; i += 3) {
        uint32_t three = (uint32_t)bytes[i] << 16 | (i + 1 < n ? (uint32_t)bytes[i + 1] << 8 : 0) |
                         (i + 2 < n ? bytes[i + 2] : 0);
        *out++ = digits[three >> 18];
        *out++ = digits[three >> 12 & 63];
        *out++ = i + 1 < n ? digits[three >> 6 & 63] : '=';
        *out++ = i + 2 < n ? digits[three & 63] : '=';
    }
    *out = 0;
}

static uint32_t rotate(uint32_t x, int by) { return x << by | x >> (32 - by); }

/* SHA-1 of a text of at most 119 bytes: two blocks are enough for Sec-WebSocket-Accept. */
static void sha1(const char *text, uint8_t digest[20]) {
    uint32_t h[5] = {0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476, 0xc3d2e1f0}, w[80];
    uint8_t blocks[128] = {0};
    size_t n = strlen(text), n_blocks = n < 56 ? 1 : 2;
    memcpy(blocks, text, n);
    blocks[n] = 0x80;
    blocks[n_blocks * 64 - 2] = (uint8_t)(n * 8 >> 8);
    blocks[n_blocks * 64 - 1] = (uint8_t)(n * 8);
    for (size_t b = 0; b < n_blocks; b++) {
        uint32_t s[5];
        memcpy(s, h, sizeof s);
        for (int i = 0; i < 80; i++) {
            const uint8_t *p = blocks + b * 64 + i * 4;
            if (i < 16) w[i] = (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
            else w[i] = rotate(w[i - 3] ^ w[i - 8] ^ w[i - 14] ^ w[i - 16], 1);
            uint32_t f = i < 20   ? ((s[1] & s[2]) | (~s[1] & s[3])) + 0x5a827999
                         : i < 40 ? (s[1] ^ s[2] ^ s[3]) + 0x6ed9eba1
                         : i < 60 ? ((s[1] & s[2]) | (s[1] & s[3]) | (s[2] & s[3])) + 0x8f1bbcdc
                                  : (s[1] ^ s[2] ^ s[3]) + 0xca62c1d6;
            uint32_t t = rotate(s[0], 5) + f + s[4] + w[i];
            s[4] = s[3], s[3] = s[2], s[2] = rotate(s[1], 30), s[1] = s[0], s[0] = t;
        }
        for (int i = 0; i < 5; i++) h[i] += s[i];
    }
    for (int i = 0; i < 20; i++) digest[i] = (uint8_t)(h[i / 4] >> (24 - i % 4 * 8));
}

/* The HTTP upgrade. Reads the head byte by byte, so that later frames stay in the socket. */
static int upgrade(const char *host, const char *port, const char *path) {
    char request[1024], head[2048], key[25], proof[64 + 25], accept[29];
    uint8_t nonce[16], digest[20];
    const char *secret = getenv("RELAY_KEY");
    size_t n = 0;
    if (read(entropy, nonce, sizeof nonce) != (ssize_t)sizeof nonce) return TRY_LATER;
    base64(nonce, sizeof nonce, key);
    int length = snprintf(request, sizeof request,
                          "GET %s HTTP/1.1\r\nHost: %s:%s\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                          "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: %s\r\n%s%s%s\r\n",
                          path, host, port, key, secret ? "Authorization: Bearer " : "", secret ? secret : "",
                          secret ? "\r\n" : "");
    if (length < 0 || (size_t)length >= sizeof request) return USAGE;
    if (!send_all((const uint8_t *)request, (size_t)length)) return TRY_LATER;
    for (head[0] = 0; !strstr(head, "\r\n\r\n"); head[n] = 0)
        if (n + 1 >= sizeof head || recv(line, head + n++, 1, 0) != 1) return TRY_LATER;
    int status = strlen(head) > 12 ? atoi(head + 9) : 0;
    if (status != 101) {
        fprintf(stderr, "refused with HTTP %d\n", status);
        return status >= 400 && status < 500 && status != 429 ? REFUSED : TRY_LATER;
    }
    /* Sec-WebSocket-Accept proves that the server speaks WebSocket (RFC 6455, 4.1). */
    snprintf(proof, sizeof proof, "%s258EAFA5-E914-47DA-95CA-C5AB0DC85B11", key);
    sha1(proof, digest);
    base64(digest, sizeof digest, accept);
    return strstr(head, accept) ? OK : REFUSED;
}

/* -- the turn --------------------------------------------------------------------------------------------------------- */

/* Receive until `due` or the end of the connection. */
static void listen_until(int64_t due) {
    static uint8_t bytes[2048];
    for (int64_t left = due - now_ms(); left > 0 && !over; left = due - now_ms()) {
        struct pollfd readable = {line, POLLIN, 0};
        if (poll(&readable, 1, (int)left) <= 0) continue;
        ssize_t n = recv(line, bytes, sizeof bytes, 0);
        if (n <= 0) end(TRY_LATER);
        else take_bytes(bytes, (size_t)n);
    }
}

static int talk(FILE *microphone, FILE *out) {
    int64_t start = now_ms();
    news = start;
    send_text(HELLO);
    for (int64_t step = 0; verdict < 0; step++) {
        listen_until(start + step * FRAME_MS);
        /* After the file send silence: VAD needs audio to detect the end of speech. */
        uint8_t frame[FRAME_BYTES] = {0};
        size_t heard = fread(frame, 1, sizeof frame, microphone);
        clearerr(microphone); /* the file may still grow, like a live microphone */
        send_frame(BINARY, frame, sizeof frame);
        play(out, step % 10 == 0);
        if (heard > 0 || speaker.n_items > 0 || speaker.played < speaker.came) news = now_ms();
        if (now_ms() - news > (response_ended ? SETTLE_MS : GIVE_UP_MS)) {
            send_text("{\"type\":\"bye\"}");
            verdict = response_ended ? OK : NO_ANSWER;
        }
    }
    listen_until(now_ms() + GOODBYE_MS); /* closing with unread data would reset the connection */
    if (speaker.lost) fprintf(stderr, "%u bytes of audio came too fast\n", speaker.lost);
    return verdict;
}

int main(int argc, char **argv) {
    char host[128], port[6] = "80", path[512] = "/";
    if (argc != 4 || (sscanf(argv[1], "ws://%127[^:/]:%5[0-9]%511s", host, port, path) < 2 &&
                      sscanf(argv[1], "ws://%127[^:/]%511s", host, path) < 1)) {
        fprintf(stderr, "usage: device ws://HOST:PORT/PATH MICROPHONE.pcm SPEAKER.pcm\n");
        return USAGE;
    }
    FILE *microphone = fopen(argv[2], "rb"), *out = fopen(argv[3], "wb"), *random = fopen("/dev/urandom", "rb");
    if (!microphone || !out || !random) {
        perror("cannot open the files");
        return USAGE;
    }
    entropy = fileno(random);
    line = connect_to(host, port);
    if (line < 0) fprintf(stderr, "cannot connect to %s:%s\n", host, port);
    int result = line < 0 ? TRY_LATER : upgrade(host, port, path);
    if (result == OK) result = talk(microphone, out);
    if (line >= 0) close(line);
    fclose(out);
    fclose(microphone);
    fclose(random);
    return result;
}
