/* Integer programs: how compiled C of everyday kinds runs. */
#include "tbench.h"

#include <stdlib.h>
#include <string.h>

/* Records, strings, small procedures and parameters by reference, in the mix that Dhrystone made known. */

enum identity { FIRST, SECOND, THIRD };

struct record {
    struct record *next;
    enum identity kind, component;
    int number;
    char text[32];
};

static struct record *record_a, *record_b;
static int global_number, global_flag, table_one[50], table_two[50][50];
static char letter_one, letter_two;

__attribute__((noinline)) static enum identity next_identity(enum identity given, int known)
{
    switch (given) {
    case FIRST: return known > 100 ? FIRST : THIRD;
    case SECOND: return known > 50 ? THIRD : FIRST;
    default: return SECOND;
    }
}

__attribute__((noinline)) static void add_offset(int first, int second, int *result)
{
    *result = second + first + 2;
}

__attribute__((noinline)) static void fill_tables(int *one, int two[50][50], int index, int value)
{
    int place = index + 5;
    one[place] = value;
    one[place + 1] = one[place];
    one[place + 30 - 10] = place;
    for (int column = place; column <= place + 1; column++)
        two[place][column] = place;
    two[place][place - 1]++;
    two[place + 20 - 5][place] = one[place];
    global_number = 5;
}

__attribute__((noinline)) static int same_letter(char one, char two)
{
    if (one != two)
        return 0;
    letter_one = one;
    return 1;
}

__attribute__((noinline)) static int greater_text(const char *one, const char *two)
{
    int place = 2;
    char letter = 'A';
    while (place <= 2)
        if (same_letter(one[place], two[place + 1]) == 0) {
            letter = 'A';
            place++;
        } else {
            place += 3;
        }
    if (letter >= 'W' && letter < 'Z')
        place = 7;
    return letter == 'R' || strcmp(one, two) > 0 ? (global_number = place + 7, 1) : 0;
}

__attribute__((noinline)) static void copy_record(struct record *from)
{
    struct record *next = from->next;
    *next = *record_a;
    from->number = 5;
    next->number = from->number;
    next->next = from->next;
    if (next->kind == FIRST) {
        next->number = 6;
        next->component = next_identity(from->component, next->number + 100);
        add_offset(next->number, 10, &next->number);
    } else {
        *from = *next;
    }
}

static uint64_t dhrystone(long iterations)
{
    char text_one[32], text_two[32];
    uint64_t sum = 0;
    record_a = calloc(1, sizeof *record_a);
    record_b = calloc(1, sizeof *record_b);
    record_a->next = record_b;
    record_a->component = THIRD;
    record_a->number = 40;
    strcpy(record_a->text, "A RECORD OF THIRTY CHARACTERS.");
    strcpy(text_one, "TEXT NUMBER ONE, OF THIRTY CH.");
    for (long i = 0; i < iterations; i++) {
        int one = 2, two = 3, three = 0;
        enum identity identity = SECOND;
        letter_one = 'A';
        global_flag = letter_one == 'A';
        letter_two = 'B';
        strcpy(text_two, "TEXT NUMBER TWO, OF THIRTY CH.");
        global_flag = !greater_text(text_one, text_two);
        while (one < two) {
            three = 5 * one - two;
            add_offset(one, two, &three);
            one++;
        }
        fill_tables(table_one, table_two, one, three);
        copy_record(record_a);
        for (char letter = 'A'; letter <= letter_two; letter++)
            if (identity == next_identity((enum identity)(letter & 1), 'C')) {
                strcpy(text_two, "TEXT NUMBER THREE, OF THIRTY C");
                two = (int)i;
                global_number = (int)i;
            }
        two = two * one;
        one = two / (three | 1);
        two = 7 * (two - three) - one;
        add_offset(one, two, &one);
        sum = mix(sum, (uint64_t)(unsigned)(one + two + three + global_number + global_flag));
    }
    free(record_a);
    free(record_b);
    return sum;
}

/* A linked list searched and sorted, a small matrix product, a state machine over text, and a CRC of it all: the mix of
   CoreMark. */

struct cell {
    struct cell *next;
    int16_t key, value;
};

static uint16_t crc16(uint16_t crc, uint16_t data)
{
    for (int bit = 0; bit < 16; bit++) {
        int carry = (crc ^ data) & 1;
        crc >>= 1;
        data >>= 1;
        if (carry)
            crc ^= 0xA001;
    }
    return crc;
}

static struct cell *merge_sort(struct cell *list)
{
    for (long run = 1;; run *= 2) {
        struct cell *left = list, *tail = NULL;
        long merges = 0;
        list = NULL;
        while (left) {
            struct cell *right = left;
            long left_size = 0, right_size = run;
            merges++;
            while (left_size < run && right) {
                left_size++;
                right = right->next;
            }
            while (left_size > 0 || (right_size > 0 && right)) {
                struct cell *taken;
                if (left_size == 0 || (right_size > 0 && right && right->key < left->key)) {
                    taken = right;
                    right = right->next;
                    right_size--;
                } else {
                    taken = left;
                    left = left->next;
                    left_size--;
                }
                if (tail)
                    tail->next = taken;
                else
                    list = taken;
                tail = taken;
            }
            left = right;
        }
        if (tail)
            tail->next = NULL;
        if (merges <= 1)
            return list;
    }
}

static int number_state(const char **place)
{
    enum { START, INTEGER, FRACTION, EXPONENT, BAD } state = START;
    const char *p = *place;
    for (; *p && *p != ','; p++)
        switch (state) {
        case START: state = (*p >= '0' && *p <= '9') || *p == '+' || *p == '-' ? INTEGER : *p == '.' ? FRACTION : BAD; break;
        case INTEGER: state = *p == '.' ? FRACTION : *p == 'e' ? EXPONENT : *p >= '0' && *p <= '9' ? INTEGER : BAD; break;
        case FRACTION: state = *p == 'e' ? EXPONENT : *p >= '0' && *p <= '9' ? FRACTION : BAD; break;
        case EXPONENT: state = *p == '+' || *p == '-' || (*p >= '0' && *p <= '9') ? EXPONENT : BAD; break;
        case BAD: break;
        }
    *place = *p ? p + 1 : p;
    return (int)state;
}

static uint64_t coremark(long iterations)
{
    enum { CELLS = 128, SIDE = 12 };
    static struct cell cells[CELLS];
    static int16_t a[SIDE][SIDE], b[SIDE][SIDE];
    static int32_t c[SIDE][SIDE];
    static const char text[] = "5012,1234,-874,+122,35.54400,.1234500,-110.700,+0.64400,5.500e+3,-.123e-2,-87e+832,T0.3e-1F,1T3.4";
    uint16_t crc = 0xFFFF;
    uint64_t state = 7;
    for (int i = 0; i < SIDE * SIDE; i++) {
        a[i / SIDE][i % SIDE] = (int16_t)(random64(&state) >> 56);
        b[i / SIDE][i % SIDE] = (int16_t)(random64(&state) >> 56);
    }
    for (long n = 0; n < iterations; n++) {
        struct cell *list = NULL;
        for (int i = 0; i < CELLS; i++) {
            cells[i] = (struct cell){list, (int16_t)(random64(&state) >> 48), (int16_t)i};
            list = &cells[i];
        }
        for (int wanted = 0; wanted < 16; wanted++)
            for (struct cell *p = list; p; p = p->next)
                if (p->value == wanted * 7) {
                    crc = crc16(crc, (uint16_t)p->key);
                    break;
                }
        list = merge_sort(list);
        for (struct cell *p = list; p; p = p->next)
            crc = crc16(crc, (uint16_t)p->key);
        for (int i = 0; i < SIDE; i++)
            for (int j = 0; j < SIDE; j++) {
                int32_t total = 0;
                for (int k = 0; k < SIDE; k++)
                    total += a[i][k] * b[k][j];
                c[i][j] = total;
            }
        for (int i = 0; i < SIDE; i++)
            crc = crc16(crc, (uint16_t)c[i][(n + i) % SIDE]);
        int counts[5] = {0};
        const char *place = text;
        while (*place)
            counts[number_state(&place)]++;
        for (int i = 0; i < 5; i++)
            crc = crc16(crc, (uint16_t)counts[i]);
    }
    return crc;
}

static uint64_t sieve(long iterations)
{
    enum { SIZE = 1 << 17 };
    static unsigned char composite[SIZE];
    uint64_t sum = 0;
    for (long n = 0; n < iterations; n++) {
        unsigned count = 0;
        BARRIER();
        for (unsigned i = 0; i < SIZE; i++)
            composite[i] = 0;
        for (unsigned i = 2; i < SIZE; i++)
            if (!composite[i]) {
                count++;
                for (unsigned j = i + i; j < SIZE; j += i)
                    composite[j] = 1;
            }
        sum = mix(sum, count);
    }
    return sum;
}

/* FIPS 180-4. */
static const uint32_t sha_k[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
};

static inline uint32_t rotr(uint32_t x, int n)
{
    return x >> n | x << (32 - n);
}

static void sha256_block(uint32_t h[8], const unsigned char *data)
{
    uint32_t w[64], s[8];
    for (int i = 0; i < 16; i++) {
        uint32_t word;
        memcpy(&word, data + 4 * i, 4);
        w[i] = __builtin_bswap32(word);
    }
    for (int i = 16; i < 64; i++)
        w[i] = w[i - 16] + w[i - 7] + (rotr(w[i - 15], 7) ^ rotr(w[i - 15], 18) ^ w[i - 15] >> 3) +
               (rotr(w[i - 2], 17) ^ rotr(w[i - 2], 19) ^ w[i - 2] >> 10);
    memcpy(s, h, sizeof s);
    for (int i = 0; i < 64; i++) {
        uint32_t one = s[7] + (rotr(s[4], 6) ^ rotr(s[4], 11) ^ rotr(s[4], 25)) + ((s[4] & s[5]) ^ (~s[4] & s[6])) +
                       sha_k[i] + w[i];
        uint32_t two = (rotr(s[0], 2) ^ rotr(s[0], 13) ^ rotr(s[0], 22)) +
                       ((s[0] & s[1]) ^ (s[0] & s[2]) ^ (s[1] & s[2]));
        s[7] = s[6];
        s[6] = s[5];
        s[5] = s[4];
        s[4] = s[3] + one;
        s[3] = s[2];
        s[2] = s[1];
        s[1] = s[0];
        s[0] = one + two;
    }
    for (int i = 0; i < 8; i++)
        h[i] += s[i];
}

static uint64_t sha256(long iterations)
{
    uint32_t h[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
    unsigned char block[64];
    for (int i = 0; i < 64; i++)
        block[i] = (unsigned char)i;
    for (long n = 0; n < iterations; n++)
        sha256_block(h, block);
    return (uint64_t)h[0] << 32 | h[7];
}

static uint64_t crc32(long iterations)
{
    static uint32_t table[256];
    static unsigned char data[4096];
    uint64_t state = 3;
    uint32_t crc = ~0u;
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t c = i;
        for (int bit = 0; bit < 8; bit++)
            c = c & 1 ? c >> 1 ^ 0xEDB88320 : c >> 1;
        table[i] = c;
    }
    for (size_t i = 0; i < sizeof data; i++)
        data[i] = (unsigned char)(random64(&state) >> 56);
    for (long n = 0; n < iterations; n++)
        for (size_t i = 0; i < sizeof data; i++)
            crc = table[(crc ^ data[i]) & 0xFF] ^ crc >> 8;
    return crc;
}

/* A byte-oriented LZ77 with a 4-byte hash and 64 KiB window, as LZ4 does it, packed and unpacked. */

static size_t lz_pack(const unsigned char *in, size_t size, unsigned char *out)
{
    static uint32_t places[4096];
    size_t at = 0, literal = 0;
    unsigned char *o = out;
    memset(places, 0, sizeof places);
    while (at + 8 < size) {
        uint32_t word, other;
        memcpy(&word, in + at, 4);
        uint32_t slot = word * 2654435761u >> 20;
        size_t candidate = places[slot];
        places[slot] = (uint32_t)at;
        memcpy(&other, in + candidate, 4);
        if (candidate >= at || at - candidate > 65535 || word != other) {
            at++;
            continue;
        }
        size_t length = 4;
        while (at + length + 1 < size && length < 255 && in[candidate + length] == in[at + length])
            length++;
        size_t run = at - literal;
        while (run >= 255) {
            *o++ = 255;
            run -= 255;
        }
        *o++ = (unsigned char)run;
        for (; literal < at; literal++)
            *o++ = in[literal];
        *o++ = (unsigned char)length;
        *o++ = (unsigned char)((at - candidate) & 0xFF);
        *o++ = (unsigned char)((at - candidate) >> 8);
        at += length;
        literal = at;
    }
    size_t run = size - literal;
    while (run >= 255) {
        *o++ = 255;
        run -= 255;
    }
    *o++ = (unsigned char)run;
    for (; literal < size; literal++)
        *o++ = in[literal];
    return (size_t)(o - out);
}

static size_t lz_unpack(const unsigned char *in, size_t size, unsigned char *out)
{
    const unsigned char *end = in + size;
    unsigned char *o = out;
    while (in < end) {
        size_t run = 0;
        while (*in == 255)
            run += *in++;
        run += *in++;
        while (run--)
            *o++ = *in++;
        if (in >= end)
            break;
        size_t length = *in++;
        size_t distance = in[0] | (size_t)in[1] << 8;
        in += 2;
        for (const unsigned char *from = o - distance; length--;)
            *o++ = *from++;
    }
    return (size_t)(o - out);
}

static uint64_t lz(long iterations)
{
    enum { SIZE = 32768 };
    static const char *const words[] = {"translate ", "block ", "the ", "guest ", "of a ", "register ", "page\n", "0x"};
    static unsigned char plain[SIZE + 16], packed[2 * SIZE], back[SIZE + 16];
    uint64_t state = 11, sum = 0;
    size_t size = 0;
    while (size < SIZE - 16) {
        const char *word = words[random64(&state) >> 61];
        memcpy(plain + size, word, strlen(word));
        size += strlen(word);
    }
    for (long n = 0; n < iterations; n++) {
        plain[n % 997] ^= 1;
        size_t packed_size = lz_pack(plain, size, packed);
        sum = mix(sum, packed_size);
        if (lz_unpack(packed, packed_size, back) != size || memcmp(plain, back, size))
            return 0;
    }
    return sum;
}

/* A bytecode interpreter: stack machine, one switch. */

enum { PUSH, ADD, SUB, MUL, XOR, LOAD, STORE, JUMP_NZ, LESS, HALT };

__attribute__((noinline)) static uint64_t execute(const int16_t *code, int64_t *locals)
{
    int64_t stack[16], *sp = stack;
    for (const int16_t *pc = code;;)
        switch (*pc++) {
        case PUSH: *sp++ = *pc++; break;
        case ADD: sp--; sp[-1] += sp[0]; break;
        case SUB: sp--; sp[-1] -= sp[0]; break;
        case MUL: sp--; sp[-1] = (int64_t)((uint64_t)sp[-1] * (uint64_t)sp[0]); break;
        case XOR: sp--; sp[-1] ^= sp[0]; break;
        case LESS: sp--; sp[-1] = sp[-1] < sp[0]; break;
        case LOAD: *sp++ = locals[*pc++]; break;
        case STORE: locals[*pc++] = *--sp; break;
        case JUMP_NZ: pc = *--sp ? code + *pc : pc + 1; break;
        default: return (uint64_t)locals[1];
        }
}

static uint64_t interpreter(long iterations)
{
    /* for (i = 0; i < 1000; i++) total = (total * 3) ^ (i - 7); */
    static const int16_t code[] = {
        PUSH, 0, STORE, 0,
        LOAD, 1, PUSH, 3, MUL, LOAD, 0, PUSH, 7, SUB, XOR, STORE, 1,
        LOAD, 0, PUSH, 1, ADD, STORE, 0,
        LOAD, 0, PUSH, 1000, LESS, JUMP_NZ, 4, HALT,
    };
    int64_t locals[2] = {0, 1};
    uint64_t sum = 0;
    for (long n = 0; n < iterations; n++)
        sum = mix(sum, execute(code, locals));
    return sum;
}

static int compare_long(const void *one, const void *two)
{
    int64_t a = *(const int64_t *)one, b = *(const int64_t *)two;
    return (a > b) - (a < b);
}

static uint64_t quicksort(long iterations)
{
    enum { SIZE = 4096 };
    static int64_t values[SIZE];
    uint64_t state = 5, sum = 0;
    for (long n = 0; n < iterations; n++) {
        for (int i = 0; i < SIZE; i++)
            values[i] = (int64_t)random64(&state);
        qsort(values, SIZE, sizeof *values, compare_long);
        sum = mix(sum, (uint64_t)values[n % SIZE]);
    }
    return sum;
}

/* A random cycle through `count` nodes, `stride` bytes apart. */
static uint64_t chase(long iterations, size_t count, size_t stride)
{
    char *memory = malloc(count * stride);
    uint32_t *order = malloc(count * sizeof *order);
    uint64_t state = 9;
    for (size_t i = 0; i < count; i++)
        order[i] = (uint32_t)i;
    for (size_t i = count - 1; i > 0; i--) {
        size_t j = random64(&state) % (i + 1);
        uint32_t swap = order[i];
        order[i] = order[j];
        order[j] = swap;
    }
    for (size_t i = 0; i < count; i++)
        *(void **)(memory + order[i] * stride) = memory + order[(i + 1) % count] * stride;
    void **place = (void **)memory;
    timer_restart();
    for (long n = 0; n < iterations; n++)
        place = (void **)*place;
    uint64_t sum = (uint64_t)((char *)place - memory);
    free(memory);
    free(order);
    return sum;
}

static uint64_t chase_near(long iterations)
{
    return chase(iterations, 60, 64);
}

static uint64_t chase_far(long iterations)
{
    return chase(iterations, 4096, 4096 + 64);
}

__attribute__((noinline)) static unsigned fibonacci(unsigned n)
{
    return n < 2 ? n : fibonacci(n - 1) + fibonacci(n - 2);
}

static uint64_t recursion(long iterations)
{
    uint64_t sum = 0;
    for (long n = 0; n < iterations; n++) {
        unsigned depth = 20;
        OPAQUE(depth);
        sum += fibonacci(depth);
    }
    return sum;
}

/* 2048-bit schoolbook products and a division by a word. */
static uint64_t bignum(long iterations)
{
    enum { WORDS = 32 };
    uint64_t a[WORDS], b[WORDS], product[2 * WORDS], state = 13, sum = 0;
    for (int i = 0; i < WORDS; i++) {
        a[i] = random64(&state);
        b[i] = random64(&state);
    }
    for (long n = 0; n < iterations; n++) {
        memset(product, 0, sizeof product);
        for (int i = 0; i < WORDS; i++) {
            uint64_t carry = 0;
            for (int j = 0; j < WORDS; j++) {
                unsigned __int128 t = (unsigned __int128)a[i] * b[j] + product[i + j] + carry;
                product[i + j] = (uint64_t)t;
                carry = (uint64_t)(t >> 64);
            }
            product[i + WORDS] = carry;
        }
        uint64_t rest = 0, divisor = 1000000007;
        for (int i = 2 * WORDS - 1; i >= 0; i--) {
            unsigned __int128 t = (unsigned __int128)rest << 64 | product[i];
            uint64_t low = (uint64_t)t, high = (uint64_t)(t >> 64), quotient;
            __asm__("divq %4" : "=a"(quotient), "=d"(rest) : "0"(low), "1"(high), "r"(divisor) : "cc");
            product[i] = quotient;
        }
        memcpy(a, product, sizeof a);
        a[0] |= 1;
        a[WORDS - 1] |= UINT64_C(1) << 63;
        sum = mix(sum, rest);
    }
    return sum;
}

/* Objects of several classes behind one interface. */

struct shape {
    const struct shape_class *class;
    long a, b;
};

struct shape_class {
    long (*area)(const struct shape *);
    void (*grow)(struct shape *, long);
};

static long box_area(const struct shape *s) { return s->a * s->b; }
static long line_area(const struct shape *s) { return s->a + s->b; }
static long ring_area(const struct shape *s) { return 3 * (s->a - s->b); }
static void box_grow(struct shape *s, long by) { s->a = (s->a + by) & 0xFF; }
static void line_grow(struct shape *s, long by) { s->b = (s->b ^ by) & 0xFFF; }

static uint64_t virtual_calls(long iterations)
{
    static const struct shape_class classes[] = {{box_area, box_grow}, {line_area, line_grow}, {ring_area, box_grow}};
    struct shape shapes[64];
    uint64_t state = 17, sum = 0;
    for (int i = 0; i < 64; i++)
        shapes[i] = (struct shape){&classes[random64(&state) % 3], i, 2 * i + 1};
    BARRIER();
    for (long n = 0; n < iterations; n++)
        for (int i = 0; i < 64; i++) {
            shapes[i].class->grow(&shapes[i], n + i);
            sum += (uint64_t)shapes[i].class->area(&shapes[i]);
        }
    return sum;
}

/* Byte by byte: upper case, count words, reverse. */
static uint64_t bytes(long iterations)
{
    enum { SIZE = 4096 };
    static char text[SIZE + 1], reversed[SIZE + 1];
    uint64_t state = 19, sum = 0;
    for (int i = 0; i < SIZE; i++)
        text[i] = "abcdefgh ijklmno \nQRSTUV"[random64(&state) % 24];
    for (long n = 0; n < iterations; n++) {
        unsigned words = 0, upper = 0, in_word = 0;
        BARRIER();
        for (const char *p = text; *p; p++) {
            char c = *p;
            if (c >= 'a' && c <= 'z') {
                c = (char)(c - 32);
                upper++;
            }
            int blank = c == ' ' || c == '\n';
            words += (unsigned)(in_word && blank);
            in_word = !blank;
            reversed[SIZE - 1 - (p - text)] = c;
        }
        sum = mix(sum, words + upper + (unsigned char)reversed[n % SIZE]);
    }
    return sum;
}

static uint64_t allocate(long iterations)
{
    enum { SLOTS = 512 };
    static unsigned char *slots[SLOTS];
    uint64_t state = 23, sum = 0;
    for (long n = 0; n < iterations; n++) {
        uint64_t r = random64(&state);
        unsigned slot = (unsigned)(r >> 32) % SLOTS;
        size_t size = 16 + (r >> 48) % (r & 7 ? 240 : 8000);
        if (slots[slot])
            sum += slots[slot][0];
        free(slots[slot]);
        slots[slot] = malloc(size);
        slots[slot][0] = (unsigned char)n;
        slots[slot][size - 1] = 1;
    }
    for (int i = 0; i < SLOTS; i++)
        free(slots[i]);
    return sum;
}

/* All placements of ten queens: shifts, masks and recursion. */
static unsigned place_queens(unsigned all, unsigned columns, unsigned left, unsigned right)
{
    unsigned count = 0, room = all & ~(columns | left | right);
    if (columns == all)
        return 1;
    while (room) {
        unsigned bit = room & -room;
        room ^= bit;
        count += place_queens(all, columns | bit, (left | bit) << 1, (right | bit) >> 1);
    }
    return count;
}

static uint64_t queens(long iterations)
{
    uint64_t sum = 0;
    for (long n = 0; n < iterations; n++) {
        unsigned all = (1 << 10) - 1;
        OPAQUE(all);
        sum += place_queens(all, 0, 0, 0);
    }
    return sum;
}

/* An open-addressing hash table keyed by strings. */
static uint64_t hash_table(long iterations)
{
    enum { SIZE = 1 << 12 };
    static char keys[SIZE][16];
    static uint32_t counts[SIZE];
    uint64_t state = 29, sum = 0;
    for (long n = 0; n < iterations; n++) {
        char key[16];
        uint32_t hash = 2166136261u, number = (uint32_t)(random64(&state) >> 48) % 2500;
        int length = 0;
        do
            key[length++] = (char)('a' + number % 10);
        while (number /= 10);
        key[length] = 0;
        for (int i = 0; i < length; i++)
            hash = (hash ^ (unsigned char)key[i]) * 16777619u;
        uint32_t slot = hash % SIZE;
        while (keys[slot][0] && strcmp(keys[slot], key))
            slot = (slot + 1) % SIZE;
        if (!keys[slot][0])
            strcpy(keys[slot], key);
        sum += ++counts[slot];
    }
    return sum;
}

const struct bench integer_benches[] = {
    {"dhrystone", 1000000, dhrystone},
    {"coremark", 15000, coremark},
    {"sieve", 300, sieve},
    {"sha256", 400000, sha256},
    {"crc32", 20000, crc32},
    {"lz4", 1500, lz},
    {"interpreter", 2000, interpreter},
    {"qsort", 300, quicksort},
    {"chase_near", 150000000, chase_near},
    {"chase_far", 4000000, chase_far},
    {"recursion", 2000, recursion},
    {"bignum", 20000, bignum},
    {"virtual_calls", 100000, virtual_calls},
    {"bytes", 25000, bytes},
    {"malloc", 2000000, allocate},
    {"queens", 500, queens},
    {"hash_table", 4000000, hash_table},
    {NULL, 0, NULL},
};
