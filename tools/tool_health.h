// What a running connection tells of itself, in sentences for people.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "transport/timer.h"

namespace nvmf::tools {

// Members of a status that a process sent: another release may send other things.
/// Fit to be shown; empty if it is missing.
std::string text_of(const nlohmann::json& object, const char* key);
/// 0 if it is missing, or no such number.
std::uint64_t number_of(const nlohmann::json& object, const char* key);
/// Milliseconds; nothing if it is missing or null.
std::optional<Duration> duration_of(const nlohmann::json& object, const char* key);

/// Of a namespace in a status: the controller has removed it, and nothing is there under its number
/// that could be accepted.
bool has_gone(const nlohmann::json& ns);

/// The loss that goes on, as "status" and "health" tell of it; empty if there is none.
std::vector<std::string> about_loss(const nlohmann::json& health);
/// All that is out of the ordinary about a connection and its namespaces.
std::vector<std::string> about_connection(const nlohmann::json& status);

}  // namespace nvmf::tools
