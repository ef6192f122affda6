/* Floating point and SIMD. Checksums are rounded where the C library may pick routines that differ in the last bit. */
#include "tbench.h"

#include <emmintrin.h>
#include <math.h>
#include <string.h>

static uint64_t rounded(double value)
{
    return (uint64_t)(int64_t)llround(value * 1e6);
}

struct body {
    double x[3], v[3], mass;
};

static uint64_t nbody(long iterations)
{
    struct body bodies[5] = {
        {{0, 0, 0}, {0, 0, 0}, 40},
        {{5, -1, 0.1}, {0.6, 2.8, 0}, 0.04},
        {{8, 4, -0.4}, {-1, 1.8, 0}, 0.01},
        {{13, -15, -0.2}, {1, 0.8, -0.01}, 0.002},
        {{15, -26, 0.2}, {0.9, 0.6, -0.03}, 0.002},
    };
    const double step = 0.001;
    for (long n = 0; n < iterations; n++) {
        for (int i = 0; i < 5; i++)
            for (int j = i + 1; j < 5; j++) {
                double d[3], square = 0;
                for (int k = 0; k < 3; k++) {
                    d[k] = bodies[i].x[k] - bodies[j].x[k];
                    square += d[k] * d[k];
                }
                double strength = step / (square * sqrt(square));
                for (int k = 0; k < 3; k++) {
                    bodies[i].v[k] -= d[k] * bodies[j].mass * strength;
                    bodies[j].v[k] += d[k] * bodies[i].mass * strength;
                }
            }
        for (int i = 0; i < 5; i++)
            for (int k = 0; k < 3; k++)
                bodies[i].x[k] += step * bodies[i].v[k];
    }
    uint64_t sum = 0, bits;
    for (int i = 0; i < 5; i++) {
        memcpy(&bits, &bodies[i].x[0], 8);
        sum = mix(sum, bits);
    }
    return sum;
}

static uint64_t matmul(long iterations)
{
    enum { SIDE = 64 };
    static double a[SIDE][SIDE], b[SIDE][SIDE], c[SIDE][SIDE];
    uint64_t state = 31, sum = 0, bits;
    for (int i = 0; i < SIDE; i++)
        for (int j = 0; j < SIDE; j++) {
            a[i][j] = (double)(random64(&state) >> 40) * 1e-7;
            b[i][j] = (double)(random64(&state) >> 40) * 1e-7;
        }
    for (long n = 0; n < iterations; n++) {
        for (int i = 0; i < SIDE; i++)
            for (int j = 0; j < SIDE; j++) {
                double total = 0;
                for (int k = 0; k < SIDE; k++)
                    total += a[i][k] * b[k][j];
                c[i][j] = total;
            }
        a[n % SIDE][n % SIDE] = c[0][0] * 1e-3;
        memcpy(&bits, &c[n % SIDE][5], 8);
        sum = mix(sum, bits);
    }
    return sum;
}

static uint64_t mandelbrot(long iterations)
{
    uint64_t sum = 0;
    for (long n = 0; n < iterations; n++)
        for (int row = 0; row < 64; row++)
            for (int column = 0; column < 64; column++) {
                double cr = column * 3.0 / 64 - 2.0, ci = row * 2.0 / 64 - 1.0, zr = 0, zi = 0;
                int count = 0;
                while (count < 64 && zr * zr + zi * zi < 4.0) {
                    double next = zr * zr - zi * zi + cr;
                    zi = 2 * zr * zi + ci;
                    zr = next;
                    count++;
                }
                sum += (unsigned)count;
            }
    return sum;
}

static uint64_t fir(long iterations)
{
    enum { TAPS = 32, SAMPLES = 1024 };
    static float coefficients[TAPS], signal[SAMPLES + TAPS], filtered[SAMPLES];
    uint64_t state = 37, sum = 0;
    uint32_t bits;
    for (int i = 0; i < TAPS; i++)
        coefficients[i] = (float)(i + 1) / (TAPS * TAPS);
    for (int i = 0; i < SAMPLES + TAPS; i++)
        signal[i] = (float)(random64(&state) >> 52) / 4096.0f;
    for (long n = 0; n < iterations; n++) {
        for (int i = 0; i < SAMPLES; i++) {
            float total = 0;
            for (int k = 0; k < TAPS; k++)
                total += coefficients[k] * signal[i + k];
            filtered[i] = total;
        }
        signal[n % SAMPLES] = filtered[(n * 7) % SAMPLES];
        memcpy(&bits, &filtered[n % SAMPLES], 4);
        sum = mix(sum, bits);
    }
    return sum;
}

static uint64_t libm(long iterations)
{
    double total = 0, x = 0.37;
    for (long n = 0; n < iterations; n++) {
        double y = x + (double)(n % 1000) * 0.001;
        OPAQUE(n);
        total += sin(y) * cos(y) + exp(-y) + log(1 + y) + pow(y, 0.7) + atan(y);
        if (total > 1000)
            total -= 1000;
    }
    /* Six digits: routines with and without fused multiply-add agree to many more. */
    return rounded(total) / 1000;
}

static uint64_t packed_integer(long iterations)
{
    enum { SIZE = 4096 };
    static uint8_t one[SIZE] __attribute__((aligned(16))), two[SIZE] __attribute__((aligned(16)));
    uint64_t state = 41, sum = 0;
    for (int i = 0; i < SIZE; i++) {
        one[i] = (uint8_t)(random64(&state) >> 56);
        two[i] = (uint8_t)(random64(&state) >> 56);
    }
    for (long n = 0; n < iterations; n++) {
        __m128i difference = _mm_setzero_si128(), products = _mm_setzero_si128();
        BARRIER();
        for (int i = 0; i < SIZE; i += 16) {
            __m128i a = _mm_load_si128((const __m128i *)(one + i)), b = _mm_load_si128((const __m128i *)(two + i));
            __m128i larger = _mm_max_epu8(a, b), average = _mm_avg_epu8(a, b);
            difference = _mm_add_epi64(difference, _mm_sad_epu8(a, b));
            products = _mm_add_epi32(products, _mm_madd_epi16(_mm_unpacklo_epi8(larger, _mm_setzero_si128()),
                                                              _mm_unpackhi_epi8(average, _mm_setzero_si128())));
            __m128i mask = _mm_cmpgt_epi8(a, b);
            _mm_store_si128((__m128i *)(two + i), _mm_or_si128(_mm_and_si128(mask, average), _mm_andnot_si128(mask, larger)));
        }
        one[n % SIZE] ^= 0x55;
        two[(n * 3) % SIZE] = (uint8_t)n;
        __m128i both = _mm_add_epi64(difference, _mm_shuffle_epi32(products, 0x4E));
        sum = mix(sum, (uint64_t)_mm_cvtsi128_si64(both));
    }
    return sum;
}

static uint64_t packed_single(long iterations)
{
    enum { SIZE = 1024 };
    static float one[SIZE] __attribute__((aligned(16))), two[SIZE] __attribute__((aligned(16)));
    uint64_t sum = 0;
    uint32_t bits[4];
    for (int i = 0; i < SIZE; i++) {
        one[i] = (float)(i % 17) * 0.25f;
        two[i] = (float)(i % 23) * 0.5f;
    }
    for (long n = 0; n < iterations; n++) {
        __m128 total = _mm_setzero_ps(), scale = _mm_set1_ps(0.99f), low = _mm_set1_ps(-8), high = _mm_set1_ps(8);
        BARRIER();
        for (int i = 0; i < SIZE; i += 4) {
            __m128 a = _mm_load_ps(one + i), b = _mm_load_ps(two + i);
            __m128 c = _mm_add_ps(_mm_mul_ps(a, scale), _mm_mul_ps(b, _mm_shuffle_ps(a, b, 0x1B)));
            c = _mm_max_ps(low, _mm_min_ps(high, _mm_sub_ps(c, b)));
            total = _mm_add_ps(total, c);
            _mm_store_ps(one + i, c);
        }
        memcpy(bits, &total, 16);
        sum = mix(sum, bits[n & 3]);
    }
    return sum;
}

static uint64_t packed_double(long iterations)
{
    enum { SIZE = 1024 };
    static double one[SIZE] __attribute__((aligned(16))), two[SIZE] __attribute__((aligned(16)));
    uint64_t sum = 0, bits[2];
    for (int i = 0; i < SIZE; i++) {
        one[i] = (double)(i % 17) * 0.25;
        two[i] = 1 + (double)(i % 23) * 0.5;
    }
    for (long n = 0; n < iterations; n++) {
        __m128d total = _mm_setzero_pd(), scale = _mm_set1_pd(0.75);
        BARRIER();
        for (int i = 0; i < SIZE; i += 2) {
            __m128d a = _mm_load_pd(one + i), b = _mm_load_pd(two + i);
            __m128d c = _mm_add_pd(_mm_mul_pd(a, scale), _mm_sqrt_pd(b));
            c = _mm_div_pd(c, _mm_add_pd(b, _mm_unpackhi_pd(b, a)));
            total = _mm_add_pd(total, c);
            _mm_store_pd(one + i, c);
        }
        memcpy(bits, &total, 16);
        sum = mix(sum, bits[n & 1]);
    }
    return sum;
}

const struct bench float_benches[] = {
    {"nbody", 250000, nbody},
    {"matmul", 150, matmul},
    {"mandelbrot", 100, mandelbrot},
    {"fir", 2000, fir},
    {"libm", 400000, libm},
    {"packed_integer", 40000, packed_integer},
    {"packed_single", 25000, packed_single},
    {"packed_double", 16000, packed_double},
    {NULL, 0, NULL},
};
