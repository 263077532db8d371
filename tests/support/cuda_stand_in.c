/* A CUDA driver without a GPU, for tests: libcuda.so.1 with the calls that cisi_runtime uses.

   Device memory is host memory in a range of its own. Work put into a stream waits until the stream is synchronised, as
   on a slow card, so that a missing synchronisation shows; a captured stream records instead. Copies must go between
   device memory and pinned memory, else they fail. Every call is written to $CUDA_STAND_IN_TRACE. */

#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef int Status;
enum { OK = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, INVALID_CONTEXT = 201, NOT_FOUND = 500, CAPTURE_UNSUPPORTED = 900 };

/* Most calls need a context that is current in the thread; some must not be made while a stream is captured. */
static __thread void *current;
static int captures;
#define IN_CONTEXT() do { if (!current) return INVALID_CONTEXT; } while (0)
#define NOT_CAPTURING() do { IN_CONTEXT(); if (captures) return CAPTURE_UNSUPPORTED; } while (0)

typedef struct Step { void *to; const void *from; size_t bytes; void (*work)(void *); void *data; struct Step *next; } Step;
typedef struct { Step *first, *last; int is_capturing; Step *kept, *kept_last; } Stream;
typedef struct { Step *first; } Graph;
typedef struct { char *start; size_t bytes; int is_device; } Block;

static Block blocks[4096];
static int block_count;
static size_t budget = (size_t)1 << 30;

static void trace(const char *name, size_t bytes) {
    static FILE *file;
    if (!file) {
        const char *path = getenv("CUDA_STAND_IN_TRACE");
        file = path ? fopen(path, "a") : NULL;
    }
    if (file) {
        fprintf(file, "%s %zu\n", name, bytes);
        fflush(file);
    }
}

static Status allocate(void **out, size_t bytes, int is_device) {
    if (is_device && bytes > budget) return OUT_OF_MEMORY;
    char *start = malloc(bytes ? bytes : 1);
    memset(start, 0xCD, bytes);
    blocks[block_count++] = (Block){start, bytes, is_device};
    *out = start;
    return OK;
}

static Status release(const void *start) {
    for (int i = 0; i < block_count; i++)
        if (blocks[i].start == start) {
            free(blocks[i].start);
            blocks[i] = blocks[--block_count];
            return OK;
        }
    return INVALID_VALUE;
}

static int lies_in(const void *address, size_t bytes, int is_device) {
    const char *start = address;
    for (int i = 0; i < block_count; i++)
        if (blocks[i].is_device == is_device && start >= blocks[i].start &&
            start + bytes <= blocks[i].start + blocks[i].bytes)
            return 1;
    return 0;
}

static void append(Step **first, Step **last, const Step *step) {
    Step *copy = malloc(sizeof *copy);
    *copy = *step;
    copy->next = NULL;
    if (*last) (*last)->next = copy; else *first = copy;
    *last = copy;
}

static void put(Stream *stream, const Step *step) {
    if (stream->is_capturing) append(&stream->kept, &stream->kept_last, step);
    else append(&stream->first, &stream->last, step);
}

static void perform(const Step *step) {
    if (step->work) step->work(step->data); else memcpy(step->to, step->from, step->bytes);
}

Status cuInit(unsigned flags) { (void)flags; return OK; }
Status cuDriverGetVersion(int *out) { *out = 13000; return OK; }
Status cuDeviceGet(int *out, int number) { *out = number; return number == 0 ? OK : 101; }
Status cuDeviceGetName(char *out, int length, int device) {
    (void)device;
    snprintf(out, length, "stand-in card");
    return OK;
}
Status cuDeviceGetAttribute(int *out, int attribute, int device) {
    (void)device;
    *out = attribute == 75 ? 8 : attribute == 76 ? 9 : 0;
    return OK;
}
Status cuDevicePrimaryCtxRetain(void **out, int device) { (void)device; trace("cuDevicePrimaryCtxRetain", 0); *out = (void *)1; return OK; }
Status cuCtxSetCurrent(void *context) { current = context; return OK; }
Status cuMemAlloc_v2(void **out, size_t bytes) { trace("cuMemAlloc", bytes); NOT_CAPTURING(); return allocate(out, bytes, 1); }
Status cuMemFree_v2(void *address) { trace("cuMemFree", 0); NOT_CAPTURING(); return release(address); }
Status cuMemHostAlloc(void **out, size_t bytes, unsigned flags) {
    (void)flags;
    trace("cuMemHostAlloc", bytes);
    NOT_CAPTURING();
    return allocate(out, bytes, 0);
}
Status cuMemFreeHost(void *address) { trace("cuMemFreeHost", 0); NOT_CAPTURING(); return release(address); }
Status cuEventCreate(void **out, unsigned flags) { trace("cuEventCreate", flags); IN_CONTEXT(); *out = (void *)2; return OK; }
Status cuEventRecord(void *event, void *stream) { (void)event; trace("cuEventRecord", (size_t)stream); IN_CONTEXT(); return OK; }
Status cuStreamWaitEvent(void *stream, void *event, unsigned flags) {
    (void)stream, (void)event;
    trace("cuStreamWaitEvent", flags);
    IN_CONTEXT();
    return OK;
}
Status cuEventDestroy_v2(void *event) { (void)event; trace("cuEventDestroy", 0); return OK; }
Status cuStreamCreate(Stream **out, unsigned flags) {
    trace("cuStreamCreate", flags);
    NOT_CAPTURING();
    *out = calloc(1, sizeof **out);
    return OK;
}
Status cuStreamDestroy_v2(Stream *stream) { trace("cuStreamDestroy", 0); free(stream); return OK; }
Status cuMemcpyHtoDAsync_v2(void *to, const void *from, size_t bytes, Stream *stream) {
    trace("cuMemcpyHtoDAsync", bytes);
    IN_CONTEXT();
    if (!lies_in(to, bytes, 1) || !lies_in(from, bytes, 0)) return INVALID_VALUE;
    put(stream, &(Step){to, from, bytes, NULL, NULL, NULL});
    return OK;
}
Status cuMemcpyDtoHAsync_v2(void *to, const void *from, size_t bytes, Stream *stream) {
    trace("cuMemcpyDtoHAsync", bytes);
    IN_CONTEXT();
    if (!lies_in(to, bytes, 0) || !lies_in(from, bytes, 1)) return INVALID_VALUE;
    put(stream, &(Step){to, from, bytes, NULL, NULL, NULL});
    return OK;
}
Status cuMemcpyDtoDAsync_v2(void *to, const void *from, size_t bytes, Stream *stream) {
    trace("cuMemcpyDtoDAsync", bytes);
    IN_CONTEXT();
    if (!lies_in(to, bytes, 1) || !lies_in(from, bytes, 1)) return INVALID_VALUE;
    put(stream, &(Step){to, from, bytes, NULL, NULL, NULL});
    return OK;
}
Status cuLaunchHostFunc(Stream *stream, void (*work)(void *), void *data) {
    trace("cuLaunchHostFunc", 0);
    put(stream, &(Step){NULL, NULL, 0, work, data, NULL});
    return OK;
}
Status cuStreamSynchronize(Stream *stream) {
    trace("cuStreamSynchronize", 0);
    IN_CONTEXT();
    if (stream->is_capturing) return CAPTURE_UNSUPPORTED;
    while (stream->first) {
        Step *step = stream->first;
        stream->first = step->next;
        perform(step);
        free(step);
    }
    stream->last = NULL;
    return OK;
}
Status cuStreamBeginCapture_v2(Stream *stream, int mode) {
    trace("cuStreamBeginCapture", mode);
    if (stream->is_capturing) return CAPTURE_UNSUPPORTED;
    stream->is_capturing = 1;
    captures++;
    return OK;
}
Status cuStreamEndCapture(Stream *stream, Graph **out) {
    trace("cuStreamEndCapture", 0);
    if (!stream->is_capturing) return CAPTURE_UNSUPPORTED;
    *out = calloc(1, sizeof **out);
    (*out)->first = stream->kept;
    stream->kept = stream->kept_last = NULL;
    stream->is_capturing = 0;
    captures--;
    return OK;
}
Status cuGraphInstantiateWithFlags(Graph **out, Graph *graph, unsigned long long flags) {
    (void)flags;
    trace("cuGraphInstantiate", 0);
    *out = calloc(1, sizeof **out);
    (*out)->first = graph->first;
    return OK;
}
Status cuGraphDestroy(Graph *graph) { trace("cuGraphDestroy", 0); free(graph); return OK; }
Status cuGraphExecDestroy(Graph *graph) { trace("cuGraphExecDestroy", 0); free(graph); return OK; }
Status cuGraphLaunch(Graph *graph, Stream *stream) {
    trace("cuGraphLaunch", 0);
    IN_CONTEXT();
    for (Step *step = graph->first; step; step = step->next) put(stream, step);
    return OK;
}

/* How cuda-bindings finds the others: by the names of the API, newest versions first. */
Status cuGetProcAddress_v2(const char *name, void **out, int version, uint64_t flags, int *found) {
    (void)version;
    (void)flags;
    char newer[128];
    static void *self;
    if (!self) self = dlopen("libcuda.so.1", RTLD_NOW);
    snprintf(newer, sizeof newer, "%s_v2", name);
    *out = dlsym(self, newer);
    if (!*out) *out = dlsym(self, name);
    if (!*out && !strcmp(name, "cuGraphInstantiate")) *out = dlsym(self, "cuGraphInstantiateWithFlags");
    if (!*out && !strcmp(name, "cuGetProcAddress")) *out = (void *)cuGetProcAddress_v2;
    if (found) *found = *out ? 0 : 1;
    return *out ? OK : NOT_FOUND;
}
