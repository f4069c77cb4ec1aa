/* What an entry of the tests starts in place of Linux: says that it was started, and from where, and what the loader
 * left in its variables. Then it fails, so that the loader goes back to the launcher; or, started by firmware and loader
 * alone, it turns the machine off. */
#include "efi.h"

static u16 buffer[32 * 1024];

static void tell(RuntimeServices *runtime, const char *label, const u16 *name) {
    u64 size = sizeof(buffer);
    if (runtime->get_variable(name, &LOADER, 0, &size, buffer) & ERROR)
        return;
    print(label);
    print16(buffer, size / 2);
    print("\n");
}

Status EFIAPI efi_main(Handle image, SystemTable *system) {
    LoadedImage *self;
    if (system->boot->handle_protocol(image, &LOADED_IMAGE, (void **) &self) & ERROR)
        return EFI_NOT_FOUND;
    /* The nodes of the path within the volume: usually one, of type media, subtype file, with text that ends in NUL. */
    print("kernel ");
    for (DevicePath *node = self->file_path; node && node->type == 4 && node->subtype == 4;) {
        u64 length = node->length[0] | node->length[1] << 8;
        print16((u16 *) (node + 1), (length - sizeof(*node)) / 2);
        node = (DevicePath *) ((u8 *) node + length);
    }
    print("\n");
    tell(system->runtime, "info ", u"LoaderInfo");
    tell(system->runtime, "entries ", u"LoaderEntries");
    tell(system->runtime, "selected ", u"LoaderEntrySelected");
    tell(system->runtime, "counted ", u"LoaderBootCountPath");
    u8 launched;
    u64 size = sizeof(launched);
    if (system->runtime->get_variable(LAUNCHED, &LOADER, 0, &size, &launched) & ERROR) {
        print("end\n");
        system->runtime->reset_system(RESET_SHUTDOWN, 0, 0, 0);
    }
    return EFI_ABORTED;
}
