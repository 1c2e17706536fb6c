// The kernel's block devices as a face of a connection.
#pragma once

#include <memory>
#include <string>

#include "connection_faces.h"
#include "host/namespace.h"

namespace nvmf::tools {

/// Devices /dev/nbdN as the options say.
[[nodiscard]] std::unique_ptr<Face> make_kernel_face(const FaceContext& context);

/// What a namespace is known by in the kernel, to any process that serves it: subsystem, NSID,
/// block size and every identifier that it has; without one, what stands for it.
[[nodiscard]] std::string kernel_identity(const host::Namespace& ns);

}  // namespace nvmf::tools
