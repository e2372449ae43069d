/* A small libnvidia-ml.so.1 with the signatures of NVIDIA's nvml.h: one GPU that says what it is
 * told. Built with -DOLD it lacks what drivers before 535 lack. The environment variable NVML_SAYS
 * may be "no driver", "nothing" (every question: not supported), "lost" or a throttle mask. */
#include <stdlib.h>
#include <string.h>

typedef int nvmlReturn_t;
typedef void *nvmlDevice_t;
typedef struct { unsigned int gpu, memory; } nvmlUtilization_t;
typedef struct { unsigned long long total, free, used; } nvmlMemory_t;
typedef struct { unsigned int version, sensorType; int temperature; } nvmlTemperature_t;

enum { OK = 0, INVALID = 2, NOT_SUPPORTED = 3, DRIVER_NOT_LOADED = 9, GPU_IS_LOST = 15 };

static int open_count = 0;
static int gpu;

static const char *says(void) {
    const char *text = getenv("NVML_SAYS");
    return text ? text : "";
}

static nvmlReturn_t answer(nvmlDevice_t device) {
    if (device != &gpu || open_count < 1) return INVALID;
    if (!strcmp(says(), "nothing")) return NOT_SUPPORTED;
    if (!strcmp(says(), "lost")) return GPU_IS_LOST;
    return OK;
}

#define ASK(device) do { nvmlReturn_t r = answer(device); if (r) return r; } while (0)

nvmlReturn_t nvmlInitWithFlags(unsigned int flags) {
    if (!strcmp(says(), "no driver")) return DRIVER_NOT_LOADED;
    open_count++;
    return OK;
}
nvmlReturn_t nvmlShutdown(void) { return open_count-- > 0 ? OK : INVALID; }
const char *nvmlErrorString(nvmlReturn_t result) { return "an error"; }
nvmlReturn_t nvmlDeviceGetHandleByIndex_v2(unsigned int index, nvmlDevice_t *device) {
    if (index != 0) return INVALID;
    *device = &gpu;
    return OK;
}
nvmlReturn_t nvmlSystemGetDriverVersion(char *text, unsigned int length) {
    strncpy(text, "580.95.05", length);
    return OK;
}
nvmlReturn_t nvmlDeviceGetName(nvmlDevice_t device, char *text, unsigned int length) {
    ASK(device);
    strncpy(text, "NVIDIA H100 80GB HBM3", length);
    return OK;
}
nvmlReturn_t nvmlDeviceGetUUID(nvmlDevice_t device, char *text, unsigned int length) {
    ASK(device);
    strncpy(text, "GPU-5f1c2a3b-0d4e-4f60-8a7b-9c0d1e2f3a4b", length);
    return OK;
}
nvmlReturn_t nvmlDeviceGetTemperature(nvmlDevice_t device, int sensor, unsigned int *celsius) {
    ASK(device);
    *celsius = 41;
    return sensor ? INVALID : OK;
}
nvmlReturn_t nvmlDeviceGetClockInfo(nvmlDevice_t device, int type, unsigned int *mhz) {
    ASK(device);
    static const unsigned int clocks[] = {1980, 1975, 2619};
    if (type < 0 || type > 2) return INVALID;
    *mhz = clocks[type];
    return OK;
}
nvmlReturn_t nvmlDeviceGetUtilizationRates(nvmlDevice_t device, nvmlUtilization_t *use) {
    ASK(device);
    use->gpu = 87;
    use->memory = 12;
    return OK;
}
nvmlReturn_t nvmlDeviceGetMemoryInfo(nvmlDevice_t device, nvmlMemory_t *memory) {
    ASK(device);
    memory->total = 81559ULL << 20;
    memory->used = 1024ULL << 20;
    memory->free = memory->total - memory->used;
    return OK;
}
nvmlReturn_t nvmlDeviceGetPowerUsage(nvmlDevice_t device, unsigned int *mw) {
    ASK(device);
    *mw = 71250;
    return OK;
}
nvmlReturn_t nvmlDeviceGetEnforcedPowerLimit(nvmlDevice_t device, unsigned int *mw) {
    ASK(device);
    *mw = 700000;
    return OK;
}
nvmlReturn_t nvmlDeviceGetPerformanceState(nvmlDevice_t device, int *state) {
    ASK(device);
    *state = 0;
    return OK;
}

static nvmlReturn_t reasons(nvmlDevice_t device, unsigned long long *bits) {
    ASK(device);
    *bits = strtoull(says(), NULL, 16);
    return OK;
}
#ifdef OLD
nvmlReturn_t nvmlDeviceGetCurrentClocksThrottleReasons(nvmlDevice_t d, unsigned long long *bits) {
    return reasons(d, bits);
}
#else
nvmlReturn_t nvmlDeviceGetCurrentClocksEventReasons(nvmlDevice_t d, unsigned long long *bits) {
    return reasons(d, bits);
}
nvmlReturn_t nvmlDeviceGetTemperatureV(nvmlDevice_t device, nvmlTemperature_t *reading) {
    ASK(device);
    if (reading->version != 0x100000C || reading->sensorType) return INVALID;
    reading->temperature = 42;
    return OK;
}
nvmlReturn_t nvmlDeviceGetTotalEnergyConsumption(nvmlDevice_t device, unsigned long long *mj) {
    ASK(device);
    static unsigned long long used = 5000000;
    *mj = used += 250;
    return OK;
}
#endif
