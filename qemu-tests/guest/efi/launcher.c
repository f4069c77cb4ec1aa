/* Runs the boot loader of every volume that has a file `state`, one after the other, in one life of the machine.
 *
 * The volume's `state` holds its name; `vars` holds what the EFI variables are to be when its loader starts: for each
 * u32 bytes of name, name (UTF-16 with NUL), u32 bytes of value, value. A loader finds its volume, its configuration and
 * its entries by the device it was started from, as when the firmware starts it. It comes back because what it starts
 * fails (kernel.c), and does not wait for a person to read that: long stalls return at once, and disks that are connected
 * are not connected again. */
#include "efi.h"

static BootServices *boot;
static RuntimeServices *runtime;
static Status(EFIAPI *real_stall)(u64);

/* Everything a loader reads or writes that could tell one state's boot from a fresh machine's. (No pointers: they would
 * need relocation.) */
static const u16 FORGET[][32] = {
    u"LoaderEntryOneShot", u"LoaderEntryDefault", u"LoaderEntryLastBooted", u"LoaderEntries", u"LoaderEntrySelected",
    u"LoaderBootCountPath", u"LoaderConfigTimeout", u"LoaderConfigTimeoutOneShot", u"LoaderSystemToken",
};

static Status EFIAPI short_stall(u64 microseconds) {
    if (microseconds >= 60000000) {
        /* A failed assertion stops the loader for good: so does the machine. */
        print("halted\n");
        runtime->reset_system(RESET_SHUTDOWN, 0, 0, 0);
    }
    return microseconds >= 100000 ? 0 : real_stall(microseconds);
}

/* A loader has the firmware connect its disk once more, which takes most of the time that a run takes. */
static Status EFIAPI connected(Handle controller, Handle *drivers, const DevicePath *remaining, u8 recursive) {
    (void) controller, (void) drivers, (void) remaining, (void) recursive;
    return 0;
}

/* When what it started comes back, 257 frees as many pages as its initrd has bytes, and others' memory with them. */
static Status EFIAPI kept(u64 address, u64 pages) {
    (void) address, (void) pages;
    return 0;
}

static File *open(File *root, const u16 *name) {
    File *file;
    return root->open(root, &file, name, 1, 0) & ERROR ? 0 : file;
}

static u64 read(File *root, const u16 *name, u8 *buffer, u64 size) {
    File *file = open(root, name);
    if (!file || file->read(file, &size, buffer) & ERROR)
        size = 0;
    if (file)
        file->close(file);
    return size;
}

static u32 number(const u8 *at) {
    return at[0] | at[1] << 8 | at[2] << 16 | (u32) at[3] << 24;
}

static void set_variables(File *root) {
    static u8 vars[16 * 1024];
    for (u64 i = 0; i < sizeof(FORGET) / sizeof(*FORGET); i++)
        runtime->set_variable(FORGET[i], &LOADER, 0, 0, 0);
    u64 size = read(root, u"vars", vars, sizeof(vars));
    for (u64 at = 0; at + 8 <= size;) {
        u32 name = number(vars + at), value = number(vars + at + 4 + name);
        /* Lasting, and seen at run time too, as an operating system sets them. */
        if (runtime->set_variable((u16 *) (vars + at + 4), &LOADER, 7, value, vars + at + 8 + name) & ERROR)
            print("cannot-set\n");
        at += 8 + name + value;
    }
}

/* Runs the loader of a volume. */
static Status run(Handle self, Handle volume) {
    static u8 path[1024];
    static const u16 file[] = LOADER_FILE;
    DevicePath *device;
    Handle image;
    Status status = boot->handle_protocol(volume, &DEVICE_PATH, (void **) &device);
    if (status & ERROR)
        return status;
    u64 length = 0;
    for (u8 *node = (u8 *) device; node[0] != 0x7f;) {
        for (u64 size = node[2] | node[3] << 8; size > 0; size--)
            path[length++] = *node++;
    }
    u8 *node = path + length;
    u64 size = 4 + sizeof(file);
    node[0] = node[1] = 4;
    node[2] = (u8) size;
    node[3] = (u8) (size >> 8);
    for (u64 i = 0; i < sizeof(file); i++)
        node[4 + i] = ((const u8 *) file)[i];
    u8 *end = node + size;
    end[0] = 0x7f, end[1] = 0xff, end[2] = 4, end[3] = 0;
    status = boot->load_image(0, self, (DevicePath *) path, 0, 0, &image);
    return status & ERROR ? status : boot->start_image(image, 0, 0);
}

Status EFIAPI efi_main(Handle self, SystemTable *system) {
    static u8 name[256];
    u64 count;
    Handle *volumes;
    boot = system->boot, runtime = system->runtime;
    real_stall = boot->stall;
    boot->stall = short_stall;
    boot->set_watchdog(0, 0, 0, 0);
    runtime->set_variable(LAUNCHED, &LOADER, BOOT_TIME, 1, "1");
    /* The firmware looked at the disk it boots from, and at no other. */
    if (boot->locate_handle_buffer(ALL_HANDLES, 0, 0, &count, &volumes) & ERROR)
        count = 0;
    for (u64 i = 0; i < count; i++)
        boot->connect(volumes[i], 0, 0, 1);
    boot->connect = connected;
    boot->free_pages = kept;
    if (boot->locate_handle_buffer(BY_PROTOCOL, &FILE_SYSTEM, 0, &count, &volumes) & ERROR)
        count = 0;
    for (u64 i = 0; i < count; i++) {
        FileSystem *system_of;
        File *root;
        if (boot->handle_protocol(volumes[i], &FILE_SYSTEM, (void **) &system_of) & ERROR ||
            system_of->open_volume(system_of, &root) & ERROR)
            continue;
        u64 length = read(root, u"state", name, sizeof(name) - 1);
        name[length] = 0;
        if (length > 0) {
            print("state ");
            print((char *) name);
            print("\n");
            set_variables(root);
        }
        root->close(root);
        if (length > 0) {
            Status status = run(self, volumes[i]);
            /* What it chose may not have started. */
            tell_variables(runtime);
            print("returned ");
            hex(status, 16);
            print("\nend\n");
        }
    }
    print("done\n");
    runtime->reset_system(RESET_SHUTDOWN, 0, 0, 0);
    return 0;
}
