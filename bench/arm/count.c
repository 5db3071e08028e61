/* A plugin of QEMU's user emulation that counts the executed instructions of a 64-bit ARM program by class.
 *
 *   cc -shared -fPIC -O2 -DAPI=1 -o count.so count.c
 *   qemu-aarch64 -plugin ./count.so,out=FILE PROGRAM
 *
 * Each call of getppid, which programs that are measured make for nothing else, appends a line to FILE: what was executed up to
 * then, class by class in the order of `enum class`, by all threads together. Counts are exact; they say nothing of time.
 *
 * The functions of QEMU are declared here as QEMU's docs/devel/tcg-plugins describes them, since few systems package its header.
 * API is the version of that interface: QEMU refuses a plugin that was built for one that it does not speak.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define EXPORT __attribute__((visibility("default")))
EXPORT int qemu_plugin_version = API;

typedef uint64_t qemu_plugin_id_t;
struct qemu_plugin_tb;
struct qemu_plugin_insn;
typedef struct qemu_info_t qemu_info_t;
enum qemu_plugin_cb_flags { QEMU_PLUGIN_CB_NO_REGS };

typedef void (*on_block)(qemu_plugin_id_t id, struct qemu_plugin_tb *tb);
typedef void (*on_run)(unsigned int vcpu, void *data);
typedef void (*on_syscall)(qemu_plugin_id_t id, unsigned int vcpu, int64_t number, uint64_t a1, uint64_t a2, uint64_t a3,
                           uint64_t a4, uint64_t a5, uint64_t a6, uint64_t a7, uint64_t a8);
void qemu_plugin_register_vcpu_tb_trans_cb(qemu_plugin_id_t id, on_block cb);
void qemu_plugin_register_vcpu_tb_exec_cb(struct qemu_plugin_tb *tb, on_run cb, enum qemu_plugin_cb_flags flags, void *data);
void qemu_plugin_register_vcpu_syscall_cb(qemu_plugin_id_t id, on_syscall cb);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *tb);
struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *tb, size_t index);
#if API < 3
const void *qemu_plugin_insn_data(const struct qemu_plugin_insn *insn);
#else
size_t qemu_plugin_insn_data(const struct qemu_plugin_insn *insn, void *dest, size_t length);
#endif

/* The system call whose executions are marks. */
#define GETPPID 173
#define THREADS 64

enum class {
    DOT,      /* dot and matrix products of 8-bit integers */
    WIDENING, /* multiplications of vectors of integers to twice the width */
    FLOAT,    /* multiply-adds of floating-point numbers */
    VECTOR,   /* all else of vectors and floating point */
    MEMORY,   /* loads and stores, of vectors too */
    BRANCH,   /* branches and system instructions */
    INTEGER,  /* all else */
    CLASSES
};

/* Instructions of a block of translated code. */
struct block {
    uint32_t counts[CLASSES];
};

static uint64_t counts[THREADS][CLASSES];
static FILE *out;

/* The class of an instruction, by the encodings of the Arm Architecture Reference Manual (DDI 0487), section C4.1. */
static enum class class_of(uint32_t word) {
#define IS(mask, bits) ((word & (mask)) == (bits))
    if (IS(0x9f20fc00, 0x0e009400) || IS(0x9f00f400, 0x0f00e000) || IS(0xbf20fc00, 0x0e009c00) || IS(0xdf20f400, 0x4e00a400))
        return DOT;
    if (IS(0x9f20dc00, 0x0e208000) || IS(0x9f20fc00, 0x0e20c000) /* vectors: MLAL, MLSL, MULL */
        || IS(0x9f00b400, 0x0f002000) || IS(0x9f00f400, 0x0f00a000)) /* the same by an element */
        return WIDENING;
    if (IS(0xbf20fc00, 0x0e20cc00) || IS(0xbf80b400, 0x0f801000) || IS(0xff000000, 0x1f000000))
        return FLOAT;
    if (IS(0x0a000000, 0x08000000))
        return MEMORY;
    if (IS(0x1c000000, 0x14000000))
        return BRANCH;
    if (IS(0x0e000000, 0x0e000000))
        return VECTOR;
    return INTEGER;
}

static void block_runs(unsigned int vcpu, void *data) {
    const struct block *block = data;
    for (int class = 0; class < CLASSES; class++)
        counts[vcpu % THREADS][class] += block->counts[class];
}

static void block_is_translated(qemu_plugin_id_t id, struct qemu_plugin_tb *tb) {
    /* Blocks are few and may be entered as long as the program runs. */
    struct block *block = calloc(1, sizeof *block);
    if (!block)
        abort();
    for (size_t index = 0; index < qemu_plugin_tb_n_insns(tb); index++) {
        uint32_t word = 0;
        struct qemu_plugin_insn *insn = qemu_plugin_tb_get_insn(tb, index);
#if API < 3
        memcpy(&word, qemu_plugin_insn_data(insn), sizeof word);
#else
        qemu_plugin_insn_data(insn, &word, sizeof word);
#endif
        block->counts[class_of(word)]++;
    }
    qemu_plugin_register_vcpu_tb_exec_cb(tb, block_runs, QEMU_PLUGIN_CB_NO_REGS, block);
}

static void system_is_called(qemu_plugin_id_t id, unsigned int vcpu, int64_t number, uint64_t a1, uint64_t a2, uint64_t a3,
                             uint64_t a4, uint64_t a5, uint64_t a6, uint64_t a7, uint64_t a8) {
    if (number != GETPPID)
        return;
    for (int class = 0; class < CLASSES; class++) {
        uint64_t sum = 0;
        for (int thread = 0; thread < THREADS; thread++)
            sum += counts[thread][class];
        fprintf(out, "%" PRIu64 "%c", sum, class + 1 < CLASSES ? ' ' : '\n');
    }
    fflush(out);
}

EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const qemu_info_t *info, int argc, char **argv) {
    for (int i = 0; i < argc; i++)
        if (!strncmp(argv[i], "out=", 4))
            out = fopen(argv[i] + 4, "w");
    if (!out) {
        fprintf(stderr, "count: out=FILE is missing or cannot be written\n");
        return 1;
    }
    qemu_plugin_register_vcpu_tb_trans_cb(id, block_is_translated);
    qemu_plugin_register_vcpu_syscall_cb(id, system_is_called);
    return 0;
}
