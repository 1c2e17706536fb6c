// The NBD server as a face of a connection.
#pragma once

#include <memory>

#include "connection_faces.h"

namespace nvmf::tools {

/// Listens where the options say, or else on a unix socket in the runtime directory.
[[nodiscard]] std::unique_ptr<Face> make_nbd_face(const FaceContext& context);

}  // namespace nvmf::tools
