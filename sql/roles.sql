-- One group role per component, shared by all Walden databases of a cluster; their rights are granted per database in grants.sql.
do $$
declare
    name text;
begin
    foreach name in array array['walden_writer', 'walden_roomserver', 'walden_reader', 'walden_maintenance', 'walden_history'] loop
        if not exists (select from pg_roles r where r.rolname = name) then
            begin
                execute format('create role %I nologin', name);
            exception when duplicate_object or unique_violation then
                -- Another installation of this cluster made it in the same moment.
                null;
            end;
        end if;
        -- The installing login takes the part of each component, unless each has a login of its own.
        if not pg_has_role(current_user, name, 'member') then
            begin
                execute format('grant %I to current_user', name);
            exception when unique_violation or internal_error then
                null;
            end;
        end if;
    end loop;
end
$$;
