// The mounted directory as a face of a connection.
#pragma once

#include <memory>

#include "connection_faces.h"

namespace nvmf::tools {

/// On the directory that the options name.
[[nodiscard]] std::unique_ptr<Face> make_fuse_face(const FaceContext& context);

}  // namespace nvmf::tools
