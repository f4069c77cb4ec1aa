/* What an entry of the tests starts in place of Linux: says that it was started, and from where, and what the loader
 * left in its variables. Then it fails, so that the loader goes back to the launcher; or, started by firmware and loader
 * alone, it turns the machine off. */
#include "efi.h"

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
    tell_variables(system->runtime);
    u8 launched;
    u64 size = sizeof(launched);
    if (system->runtime->get_variable(LAUNCHED, &LOADER, 0, &size, &launched) & ERROR) {
        print("end\n");
        system->runtime->reset_system(RESET_SHUTDOWN, 0, 0, 0);
    }
    return EFI_ABORTED;
}
