/* A stand-in for NVIDIA's libnvidia-ml.so.1, as far as a worker asks it, built by the tests of
 * src/telemetry/gpus.rs with -DSTATE="path". Each line of that file is a device: its id, the bytes of its memory,
 * the number of compute processes on it, and what it answers: 0, or an error of NVML's to all questions after its
 * handle. A missing file is a driver that is not loaded. */
#include <stdio.h>
#include <string.h>

enum { SUCCESS = 0, INVALID = 2, INSUFFICIENT_SIZE = 7, NOT_LOADED = 9, MAX = 16 };

struct device {
  char uuid[96];
  unsigned long long memory;
  unsigned processes, answer;
};

struct memory {
  unsigned version;
  unsigned long long total, reserved, free, used;
};

struct process {
  unsigned pid;
  unsigned long long memory;
  unsigned gpu_instance, compute_instance;
};

static int read_devices(struct device *all) {
  FILE *file = fopen(STATE, "r");
  int count = 0;
  if (!file) return -1;
  while (count < MAX &&
         fscanf(file, "%95s %llu %u %u", all[count].uuid, &all[count].memory, &all[count].processes,
                &all[count].answer) == 4)
    count++;
  fclose(file);
  return count;
}

/* Handles are positions, beginning with 1. */
static unsigned find(void *handle, struct device *found) {
  struct device all[MAX];
  size_t position = (size_t)handle;
  int count = read_devices(all);
  if (count < 0) return NOT_LOADED;
  if (position < 1 || position > (size_t)count) return INVALID;
  *found = all[position - 1];
  return found->answer;
}

unsigned nvmlInit_v2(void) {
  struct device all[MAX];
  return read_devices(all) < 0 ? NOT_LOADED : SUCCESS;
}

unsigned nvmlShutdown(void) { return SUCCESS; }

unsigned nvmlDeviceGetCount_v2(unsigned *count) {
  struct device all[MAX];
  int found = read_devices(all);
  if (found < 0) return NOT_LOADED;
  *count = (unsigned)found;
  return SUCCESS;
}

unsigned nvmlDeviceGetHandleByIndex_v2(unsigned index, void **handle) {
  *handle = (void *)((size_t)index + 1);
  return SUCCESS;
}

unsigned nvmlDeviceGetUUID(void *handle, char *uuid, unsigned length) {
  struct device device;
  unsigned answer = find(handle, &device);
  if (answer != SUCCESS) return answer;
  if (strlen(device.uuid) >= length) return INSUFFICIENT_SIZE;
  strcpy(uuid, device.uuid);
  return SUCCESS;
}

unsigned nvmlDeviceGetMemoryInfo_v2(void *handle, struct memory *memory) {
  struct device device;
  unsigned answer = find(handle, &device);
  if (answer != SUCCESS) return answer;
  if (memory->version != (sizeof *memory | 2u << 24)) return INVALID;
  memory->total = device.memory;
  memory->free = device.memory;
  memory->reserved = memory->used = 0;
  return SUCCESS;
}

unsigned nvmlDeviceGetComputeRunningProcesses_v3(void *handle, unsigned *count,
                                                 struct process *processes) {
  struct device device;
  unsigned i, answer = find(handle, &device);
  if (answer != SUCCESS) return answer;
  if (*count < device.processes) {
    *count = device.processes;
    return INSUFFICIENT_SIZE;
  }
  for (i = 0; i < device.processes; i++)
    processes[i] = (struct process){.pid = 1000 + i, .memory = 1 << 20};
  *count = device.processes;
  return SUCCESS;
}
