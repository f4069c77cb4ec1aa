/* The few parts of UEFI that the two programs here need, from the UEFI specification 2.10. */

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

#ifdef __x86_64__
#define EFIAPI __attribute__((ms_abi))
#define LOADER_FILE u"\\EFI\\BOOT\\BOOTX64.EFI"
#else
#define EFIAPI
#define LOADER_FILE u"\\EFI\\BOOT\\BOOTAA64.EFI"
#endif
#define ERROR (1ull << 63)
#define EFI_ABORTED (ERROR | 21)
#define EFI_NOT_FOUND (ERROR | 14)

typedef void *Handle;
typedef u64 Status;
typedef struct { u32 a; u16 b, c; u8 d[8]; } Guid;
typedef struct { u8 type, subtype, length[2]; } DevicePath;

typedef struct { u64 signature; u32 revision, size, crc32, reserved; } TableHeader;

typedef struct {
    TableHeader header;
    void *time[4], *memory[2];
    Status(EFIAPI *get_variable)(const u16 *name, const Guid *, u32 *attributes, u64 *size, void *data);
    void *get_next_variable;
    Status(EFIAPI *set_variable)(const u16 *name, const Guid *, u32 attributes, u64 size, const void *data);
    void *get_next_high_monotonic;
    void(EFIAPI *reset_system)(u32 type, Status, u64 size, const void *data);
} RuntimeServices;

typedef struct {
    TableHeader header;
    void *tpl[2], *allocate_pages;
    Status(EFIAPI *free_pages)(u64 address, u64 pages);
    void *get_memory_map;
    Status(EFIAPI *allocate_pool)(u32 type, u64 size, void **buffer);
    void *free_pool;
    void *events[6];
    void *install_protocol, *reinstall_protocol, *uninstall_protocol;
    Status(EFIAPI *handle_protocol)(Handle, const Guid *, void **interface);
    void *reserved, *register_protocol_notify, *locate_handle, *locate_device_path, *install_configuration_table;
    Status(EFIAPI *load_image)(u8 boot_policy, Handle parent, const DevicePath *, void *source, u64 size, Handle *image);
    Status(EFIAPI *start_image)(Handle image, u64 *exit_size, u16 **exit_data);
    void *exit;
    Status(EFIAPI *unload_image)(Handle image);
    void *exit_boot_services, *get_next_monotonic;
    Status(EFIAPI *stall)(u64 microseconds);
    Status(EFIAPI *set_watchdog)(u64 seconds, u64 code, u64 size, const u16 *data);
    Status(EFIAPI *connect)(Handle, Handle *drivers, const DevicePath *remaining, u8 recursive);
    void *disconnect, *open_protocol[3], *protocols_per_handle;
    Status(EFIAPI *locate_handle_buffer)(u32 by, const Guid *, void *key, u64 *count, Handle **buffer);
} BootServices;

typedef struct {
    TableHeader header;
    const u16 *vendor;
    u32 revision;
    Handle console_in_handle;
    void *console_in;
    Handle console_out_handle;
    void *console_out;
    Handle error_handle;
    void *error;
    RuntimeServices *runtime;
    BootServices *boot;
} SystemTable;

typedef struct {
    u32 revision;
    Handle parent;
    SystemTable *system;
    Handle device;
    DevicePath *file_path;
} LoadedImage;

typedef struct File {
    u64 revision;
    Status(EFIAPI *open)(struct File *, struct File **opened, const u16 *name, u64 mode, u64 attributes);
    Status(EFIAPI *close)(struct File *);
    void *remove;
    Status(EFIAPI *read)(struct File *, u64 *size, void *buffer);
} File;

typedef struct {
    u64 revision;
    Status(EFIAPI *open_volume)(void *self, File **root);
} FileSystem;

static const Guid LOADED_IMAGE = {0x5b1b31a1, 0x9562, 0x11d2, {0x8e, 0x3f, 0x00, 0xa0, 0xc9, 0x69, 0x72, 0x3b}};
static const Guid DEVICE_PATH = {0x09576e91, 0x6d3f, 0x11d2, {0x8e, 0x39, 0x00, 0xa0, 0xc9, 0x69, 0x72, 0x3b}};
static const Guid FILE_SYSTEM = {0x964e5b22, 0x6459, 0x11d2, {0x8e, 0x39, 0x00, 0xa0, 0xc9, 0x69, 0x72, 0x3b}};
/* The vendor of systemd-boot's variables. */
static const Guid LOADER = {0x4a67b082, 0x0a4c, 0x41cf, {0xb6, 0xc7, 0x44, 0x0b, 0x29, 0xbb, 0x8c, 0x4f}};

#define BOOT_TIME 2 /* a volatile variable of the firmware's time */
#define RESET_SHUTDOWN 2
#define ALL_HANDLES 0
#define BY_PROTOCOL 2

/* Said by the launcher to the kernel: there is someone to go back to. */
#define LAUNCHED u"RalphLaunched"

/* What is printed goes to QEMU byte by byte, past the firmware: a console would wrap it and mix it with the loader's. */
static inline void put(u8 byte) {
#ifdef __x86_64__
    /* The debug port. */
    __asm__ volatile("outb %0, %1" : : "a"(byte), "Nd"((u16) 0xe9));
#else
    /* Semihosting: the call SYS_WRITEC, with the byte's address. */
    register u64 call __asm__("x0") = 3;
    register const u8 *at __asm__("x1") = &byte;
    __asm__ volatile("hlt #0xf000" : "+r"(call) : "r"(at) : "memory");
#endif
}

static inline void print(const char *text) {
    while (*text)
        put((u8) *text++);
}

static inline void hex(u64 value, int digits) {
    while (digits-- > 0)
        put((u8) "0123456789abcdef"[(value >> (4 * digits)) & 15]);
}

/* UTF-16, four digits a unit. */
static inline void print16(const u16 *text, u64 units) {
    for (u64 i = 0; i < units; i++)
        hex(text[i], 4);
}

static inline void tell(RuntimeServices *runtime, const char *label, const u16 *name) {
    static u16 value[32 * 1024];
    u64 size = sizeof(value);
    if (runtime->get_variable(name, &LOADER, 0, &size, value) & ERROR)
        return;
    print(label);
    print16(value, size / 2);
    print("\n");
}

/* What a loader says of its list and its choice. */
static inline void tell_variables(RuntimeServices *runtime) {
    tell(runtime, "info ", u"LoaderInfo");
    tell(runtime, "entries ", u"LoaderEntries");
    tell(runtime, "selected ", u"LoaderEntrySelected");
    tell(runtime, "counted ", u"LoaderBootCountPath");
}
